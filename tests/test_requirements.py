"""The lock installs what ``pyproject.toml`` asks for, verified by hashes, and never touches torch."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = {
    "run.txt": {"train", "data", "api", "ui"},
    "services.txt": {"data", "api", "ui", "postgres"},
    "worker.txt": {"train", "data", "api", "postgres"},
    "api.txt": {"data", "api", "postgres"},
    "ui.txt": {"ui"},
    "dev.txt": {"train", "data", "api", "ui", "postgres", "mlflow", "onnx", "tensorboard"},
}
"""Lock -> the extras that it serves."""


def text(name: str) -> str:
    return (ROOT / "requirements" / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Package -> version, in one lock."""
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text(name), re.M)}


def wanted(extras: set[str]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [requirement for requirement in map(Requirement, lines) if requirement.name != "torch"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_all_that_its_extras_ask_for(name: str) -> None:
    locked = pins(name)
    for requirement in wanted(LOCKS[name]):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in {name}: run make lock"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is {version} in {name}"


def test_the_developers_lock_holds_all_tools() -> None:
    tools = [Requirement(line.partition("#")[0]) for file in ("dev.in", "common.in") for line in packages(file)]
    locked = pins("dev.txt")
    assert all(canonicalize_name(tool.name) in locked for tool in tools)


def packages(name: str) -> list[str]:
    return [line for line in text(name).splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", ["run.txt", "services.txt", "worker.txt", "api.txt", "ui.txt"])
def test_the_locks_agree_with_each_other(name: str) -> None:
    developers = pins("dev.txt")
    assert {package: developers.get(package) for package in pins(name)} == pins(name)


@pytest.mark.parametrize("name", [*LOCKS, "samples.txt"])
def test_every_pin_has_a_hash(name: str) -> None:
    entries = re.split(r"^(?=[\w.-]+==)", text(name), flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert all("==" in line or line.startswith(("#", " ")) or not line for line in text(name).splitlines())


@pytest.mark.parametrize("name", [*LOCKS, "samples.txt"])
def test_no_lock_pins_torch_or_cuda_or_names_a_place(name: str) -> None:
    heavy = re.compile(r"torch|triton|nvidia-(?!ml-py$)|cuda")
    assert not [package for package in pins(name) if heavy.match(package)]
    assert not re.search(r"^--|file:|https?:|@ ", text(name), re.MULTILINE)


def test_what_the_source_imports_is_declared() -> None:
    """A package that only another package brings along may be gone with its next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {canonicalize_name(requirement.name) for requirement in wanted(set(project["optional-dependencies"]))}
    assert imported_distributions("src") - declared == {"torch"}


def test_what_the_tests_import_is_locked() -> None:
    outside = {"torch", "loramill", "wandb", "no-such-package", *pins("samples.txt")}
    assert imported_distributions("tests", "benchmarks") - outside <= set(pins("dev.txt"))


def imported_distributions(*folders: str) -> set[str]:
    """Distributions of all third-party modules that the Python files below these folders import."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    own = {file.stem for file in files} | {path.name for path in (ROOT / "src").iterdir()}
    modules = set().union(*(imported_modules(file) for file in files)) - own - sys.stdlib_module_names
    known = packages_distributions()
    return {canonicalize_name(known.get(module, [module])[0]) for module in modules}


def imported_modules(file: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.partition(".")[0])
    return modules


def test_torch_is_pinned_by_itself_and_the_services_do_without() -> None:
    assert packages("torch.txt") == ["torch==2.13.0"]
    assert not {"transformers", "peft", "accelerate", "safetensors"} & set(pins("services.txt"))
