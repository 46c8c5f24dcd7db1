"""What a run imports decides how soon its first step comes."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("transformers", "peft", "sklearn", "datasets", "polars", "scipy", "pandas", "matplotlib", "pyarrow", "optuna")


def test_a_run_imports_torch_and_nothing_else_that_is_heavy() -> None:
    code = "import sys, loramill.training.run; print(*{name.partition('.')[0] for name in sys.modules})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(finished.stdout.split())
    assert "torch" in imported
    assert imported.isdisjoint(HEAVY), imported & set(HEAVY)
