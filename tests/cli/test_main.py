from __future__ import annotations

import importlib.util
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from loramill.cli.main import COMMANDS

HEAVY = ("torch", "transformers", "peft", "sqlalchemy", "pydantic", "numpy", "pyarrow", "yaml", "matplotlib")
WRITTEN = [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module)]


def loramill(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = "import sys; from loramill.cli.main import main; sys.argv[0] = 'loramill'; main()"
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_lists_every_command_with_a_line() -> None:
    done = loramill("--help")
    assert done.returncode == 0
    assert not done.stderr
    assert re.findall(r"^  ([a-z]+)  +[A-Z]", done.stdout, re.MULTILINE) == list(COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    script = f"""
import sys
sys.argv = ["loramill", "--help"]
from loramill.cli.main import main
try:
    main()
except SystemExit:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_help_takes_no_more_than_three_tenths_of_a_second() -> None:
    """CPU time, since other processes may hold the cores; on an idle machine the clock shows the same."""
    times = []
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        loramill("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert sorted(times)[3] <= 0.3


@pytest.mark.parametrize("name", WRITTEN)
def test_every_command_has_help_and_no_completion_flags(name: str) -> None:
    done = loramill(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"Usage: loramill {name}" in done.stdout
    assert "completion" not in done.stdout


def test_no_command_at_all_shows_help() -> None:
    done = loramill()
    assert done.returncode == 2
    assert "Usage: loramill" in done.stdout + done.stderr
    assert "train" in done.stdout + done.stderr


def test_a_typo_names_the_nearest_command() -> None:
    done = loramill("trian")
    assert done.returncode == 2
    assert "Did you mean 'train'?" in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", loramill("--version").stdout)


def test_a_wrong_config_is_exit_code_2_and_one_readable_message(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("lora: {r: 0}\ntraining: {learning_rat: 1}\n")
    done = loramill("config", "show", "config.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.splitlines() == [
        "error [config_invalid]: config.yaml: 2 problems",
        "  - lora.r: must be at least 1, not 0",
        "  - training.learning_rat: unknown key (did you mean training.learning_rate?)",
    ]


def test_an_expected_error_is_exit_code_1_with_what_to_do(tmp_path: Path) -> None:
    done = loramill("experiments", "show", "nothing", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error [not_found]: ")
    assert "Traceback" not in done.stderr


def test_a_secret_that_is_not_good_enough_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LORAMILL_ENV=production\nJWT_SECRET=short\n")
    done = loramill("api", "--port", "1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error [config_invalid]: environment: 1 problem\n  - JWT_SECRET: is shorter than 32")
    assert "Traceback" not in done.stderr


def test_an_option_may_be_written_with_underscores_too(tmp_path: Path) -> None:
    done = loramill("experiments", "list", "--sort_by", "eval_accuracy", "--min_accuracy=0.5", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"experiments": []' in done.stdout
