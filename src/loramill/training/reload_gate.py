"""The reload gate: a saved model counts only when a fresh process gets the same logits from it.

A head that is not saved, a wrong scale, a tokenizer of another model: all of them show here, before anyone relies on
the model (huggingface/peft#1070, #2027).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loramill.base_models import locate_base_model
from loramill.engine.bank import Adapter, AdapterBank
from loramill.engine.base import FrozenBase, load_base
from loramill.engine.model_labels import ModelLabels
from loramill.engine.peft_format import load_adapter
from loramill.engine.step import predict_logits
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import ReloadMismatchError
from loramill.files import write_json

TOLERANCE = 1e-5
ROWS = 32
"""Rows whose logits are compared: enough to see a lost head, few enough to cost no time."""


def check_reload(
    folder: Path, base: FrozenBase, adapter: Adapter, texts: Sequence[str], pairs: Sequence[str] | None
) -> float:
    """Reload ``final_model`` in a fresh process and compare its logits with those of the adapter in memory.

    Args:
        base: in float32.

    Returns:
        The largest absolute difference.

    Raises:
        ReloadMismatchError: it is above 1e-5, or the reload failed.
    """
    texts, pairs = list(texts[:ROWS]), list(pairs[:ROWS]) if pairs is not None else None
    expected = _logits(base, adapter, folder, texts, pairs)
    request, answer = folder.parent / ".reload_request.json", folder.parent / ".reload_logits.safetensors"
    try:
        write_json(request, {"folder": str(folder), "texts": texts, "pairs": pairs, "device": str(base.device)})
        command = [sys.executable, "-m", "loramill.training.reload_gate", str(request), str(answer)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
        if finished.returncode != 0:
            last = finished.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ReloadMismatchError(f"{folder} does not reload in a fresh process: {last[0]}")
        difference = float((load_file(answer)["logits"] - expected).abs().max())
    finally:
        request.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)
    if not difference <= TOLERANCE:
        raise ReloadMismatchError(
            f"{folder} gives other logits after a reload: they differ by {difference:.2g}, allowed is 1e-5.",
            fix="Do not use this model. Please report it with the experiment's folder.",
        )
    return difference


def reload_logits(request: Path, answer: Path) -> None:
    """What the fresh process does: read ``final_model`` from the disk alone and write its logits."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    folder = Path(asked["folder"])
    files = locate_base_model(ModelLabels.read(folder).base_model)
    base = load_base(files.config, files.weights, dtype=torch.float32, device=torch.device(asked["device"]))
    save_file({"logits": _logits(base, load_adapter(folder, base), folder, asked["texts"], asked["pairs"])}, answer)


def _logits(
    base: FrozenBase, adapter: Adapter, folder: Path, texts: Sequence[str], pairs: Sequence[str] | None
) -> Tensor:
    rows = tokenize(load_tokenizer(folder), texts, pairs, max_length=ModelLabels.read(folder).max_length)
    return predict_logits(AdapterBank(base, [adapter]), 0, rows)


if __name__ == "__main__":
    reload_logits(Path(sys.argv[1]), Path(sys.argv[2]))
