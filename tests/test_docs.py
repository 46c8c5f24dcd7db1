"""Docs that cannot rot: what they list is compared with what there is."""

from __future__ import annotations

import re
import runpy
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import typer

from loramill.cli.main import COMMANDS
from loramill.errors import LoramillError

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.zh-TW.md"]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, ROOT / "docs")
    for path in folder.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    and path.relative_to(ROOT).parts[0] in ("docs", path.name)
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def error_codes(error: type[LoramillError] = LoramillError) -> set[str]:
    return {error.code}.union(*(error_codes(kind) for kind in error.__subclasses__()))


def make_targets() -> dict[str, str]:
    return dict(re.findall(r"^([a-z][a-z0-9-]*):.*?(?:## (.*))?$", read("Makefile"), re.MULTILINE))


def test_every_error_code_has_an_entry_and_every_entry_a_code() -> None:
    import loramill.client  # noqa: F401 - has an error of its own, which counts whoever imported it before

    entries = re.findall(r"^### (\w+)$", read("docs/troubleshooting.md"), re.MULTILINE)
    assert sorted(entries) == sorted(error_codes())


def test_every_entry_says_something() -> None:
    entries = re.split(r"^##+ .*$", read("docs/troubleshooting.md"), flags=re.MULTILINE)[1:]
    assert all(len(entry.split()) >= 10 for entry in entries if entry.strip())


def test_every_command_that_a_message_or_a_document_names_exists() -> None:
    groups = {name: typer.main.get_command(import_module(module).app) for name, (module, _) in COMMANDS.items()}
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / name for name in DOCUMENTS)]
    written = "".join(file.read_text(encoding="utf-8") for file in files)
    for command, part in sorted(set(re.findall(r"`loramill ([a-z]+)(?: ([a-z-]+))?", written))):
        assert command in groups
        known = getattr(groups[command], "commands", None)
        assert not part or known is None or part in known, f"loramill {command} {part}"


def test_the_reference_is_what_the_code_says() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "render_reference.py"))
    assert read("docs/reference.md") == script["render_reference"]()


def test_make_help_lists_every_target_in_one_line() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  make (\S+) +\S", shown, re.MULTILINE)
    assert listed == list(make_targets())
    assert max(map(len, shown.splitlines())) <= 100


def test_no_target_shares_its_name_with_a_file_by_accident() -> None:
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", read("Makefile"), re.MULTILINE)
    assert phony
    assert set(phony.group(1).replace("\\\n", " ").split()) == set(make_targets())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_link_to_files_that_are_there(name: str) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", read(name))
    missing = [link for link in links if not (ROOT / name).parent.joinpath(link).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_commands_and_targets_that_exist(name: str) -> None:
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", read(name), re.DOTALL))
    targets = set(re.findall(r"\bmake ([a-z][a-z0-9-]+)", code))
    commands = set(re.findall(r"(?:^|[`$] ?|\bbin/)loramill ([a-z]+)", code, re.MULTILINE))
    assert targets <= set(make_targets())
    assert commands <= set(COMMANDS)


@pytest.mark.parametrize("name", READMES)
def test_a_readme_is_short_and_says_how_to_test(name: str) -> None:
    assert len(read(name).splitlines()) <= 150
    assert "make quickstart" in read(name)
    assert "make test" in read(name)


def test_both_readmes_run_the_same_commands() -> None:
    blocks = [re.findall(r"^```sh\n(.*?)^```", read(name), re.DOTALL | re.MULTILINE) for name in READMES]
    commands = [[line.partition("#")[0].rstrip() for block in found for line in block.splitlines()] for found in blocks]
    assert commands[0] == commands[1]


def test_ci_runs_what_the_readme_says() -> None:
    lines = [line for line in read(".ci/run").splitlines() if line.startswith("make ")]
    assert lines == ["make test", "make check"]


def test_the_changelog_has_an_unreleased_part() -> None:
    assert re.search(r"^## \[Unreleased\]\n\n### (Added|Changed|Fixed)", read("CHANGELOG.md"), re.MULTILINE)


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
