"""The Dockerfile and what goes into a build, as files; ``test_containers.py`` builds it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from deployment_files import ROOT, run, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TARGETS = ["api", "ui", "worker", "inference", "worker-cuda", "inference-cuda"]


def test_hadolint_has_no_warning() -> None:
    done = run(tool("hadolint"), "Dockerfile")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hadolint_would_say_something(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp\n")
    assert run(tool("hadolint"), str(tmp_path / "Dockerfile")).returncode == 1


def test_no_syntax_line_makes_a_build_ask_a_registry() -> None:
    assert not re.search(r"^#\s*(syntax|check)\s*=", DOCKERFILE, re.MULTILINE | re.IGNORECASE)


def stages() -> dict[str, str]:
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {name: body for _, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def test_every_target_can_say_whether_it_works() -> None:
    assert all("\nHEALTHCHECK " in stages()[target] for target in TARGETS)
    assert "USER 10001:10001" in stages()["runtime"]


def test_packages_come_from_the_lock() -> None:
    installs = re.findall(r"pip install (.*?)(?: &&|; fi|$)", DOCKERFILE, re.MULTILINE)
    torch, own = "--requirement requirements/torch.txt", "--no-build-isolation ."
    locked = [line for line in installs if line not in (torch, own)]
    assert len(locked) >= 5
    assert all(re.fullmatch(r"--require-hashes --requirement requirements/\w+\.txt", line) for line in locked)


def test_no_secret_is_an_argument_or_a_variable_of_a_build() -> None:
    names = re.findall(r"^(?:ARG|ENV) +(\w+)|^    ([A-Z_]+)=", DOCKERFILE, re.MULTILINE)
    assert not [name for pair in names for name in pair if re.search("SECRET|PASSWORD|KEY|TOKEN", name)]


def test_nothing_goes_into_a_build_that_is_not_named(tmp_path: Path) -> None:
    """Docker's rules are followed from top to bottom: the first refuses everything, so a new folder stays outside."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        part for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for part in line.split()
    }
    tops = {part if part in allowed else part.split("/")[0] for part in copied}
    assert tops == allowed
    assert not allowed & {".env", ".git", "results", "data", ".venv", "tests"}


def test_the_slimming_script_removes_what_it_says(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    kept = ["numpy/core.py", "numpy/_core/tests/_natype.py", "pyarrow/libarrow.so.1", "torch/lib/libtorch.so"]
    gone = ["numpy/fft/tests/test_fft.py", "pandas/tests/a.py", "pyarrow/libarrow_flight.so.1", "torch/include/a.h"]
    for name in [*kept, *gone]:
        file = packages / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    script = shutil.copy(ROOT / "deploy" / "slim-packages.sh", tmp_path)
    assert run(str(script), str(tmp_path)).returncode == 0
    assert sorted(str(file.relative_to(packages)) for file in packages.rglob("*") if file.is_file()) == sorted(kept)
