"""The contracts that import-linter checks name every part of the package, also those that were added later."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PARTS = {
    path.stem
    for path in (ROOT / "src" / "loramill").iterdir()
    if path.suffix == ".py" or (path / "__init__.py").exists()
}
COMPUTE = {"engine", "training", "inference", "sweeps"}


def test_every_part_has_its_layer() -> None:
    layers = next(contract for contract in CONTRACTS if contract["type"] == "layers")["layers"]
    named = {part for layer in layers for part in re.findall(r"\w+", layer)}
    assert PARTS - {"__init__"} <= named


def test_every_part_that_does_not_compute_is_kept_from_torch() -> None:
    kept = next(contract for contract in CONTRACTS if contract["type"] == "forbidden")["source_modules"]
    assert sorted(kept) == sorted(f"loramill.{part}" for part in PARTS - COMPUTE - {"__init__"})


def test_packages_export_nothing() -> None:
    filled = [path for path in (ROOT / "src").rglob("__init__.py") if path.read_text().strip()]
    assert not filled, "an import in a package's __init__ is paid by everyone who uses any part of it"
