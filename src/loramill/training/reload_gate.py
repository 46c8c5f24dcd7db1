"""The reload gate: a saved model counts only when a fresh process gets the same logits from it.

A head that is not saved, a wrong scale, a tokenizer of another model: all of them show here, before anyone relies on
the model (huggingface/peft#1070, #2027).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loramill.base_models import locate_base_model
from loramill.engine.adapters import BaseNeeds, load_any_base
from loramill.engine.bank import AdapterBank
from loramill.engine.base import FrozenBase
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.model_labels import ModelLabels
from loramill.engine.peft_format import CONFIG_FILE, load_adapter
from loramill.engine.step import predict_logits
from loramill.engine.token_rows import TokenRows
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import ReloadMismatchError
from loramill.files import write_json

TOLERANCE = 1e-5
FRESH_PROCESS = """
import sys
from pathlib import Path
from loramill.imports import large_import
with large_import():
    from loramill.training.reload_gate import reload_logits
reload_logits(Path(sys.argv[1]), Path(sys.argv[2]))
"""
ROWS = 32
"""Rows whose logits are compared: enough to see a lost head, few enough to cost no time."""


def check_reloads(
    saved: Mapping[Path, Adapter],
    base: FrozenBase,
    tokens: TokenRows,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
) -> list[float]:
    """Reload saved models of one base in one fresh process and compare their logits with those of the adapters.

    Args:
        saved: ``final_model/`` folder -> the adapter that it was written from.
        base: in float32.
        tokens: what the run made of the texts; the fresh process makes its own, with the tokenizer that was saved.
        texts, pairs: the rows of ``tokens``; the first ones are compared.

    Returns:
        The largest absolute difference of each.

    Raises:
        ReloadMismatchError: one is above 1e-5, or the reload failed.
    """
    texts, pairs = list(texts[:ROWS]), list(pairs[:ROWS]) if pairs is not None else None
    rows = tokens.first(ROWS)
    expected = [predict_logits(AdapterBank(base, [adapter]), 0, rows) for adapter in saved.values()]
    with tempfile.TemporaryDirectory(dir=next(iter(saved)).parent, prefix=".reload-") as exchange:
        request, answer = Path(exchange) / "request.json", Path(exchange) / "logits.safetensors"
        folders = [str(folder.absolute()) for folder in saved]
        write_json(request, {"folders": folders, "texts": texts, "pairs": pairs, "device": str(base.device)})
        command = [sys.executable, "-c", FRESH_PROCESS, str(request), str(answer)]
        finished = _run(command)
        if finished.returncode == -signal.SIGINT:  # Ctrl-C reaches every process of the terminal, not only the run
            finished = _run(command)
        if finished.returncode != 0:
            last = finished.stderr.strip().splitlines()[-1:] or ["no message"]
            raise ReloadMismatchError(f"The saved model does not reload in a fresh process: {last[0]}")
        found = load_file(answer)
    return [
        _compare(folder, found[str(index)], logits)
        for index, (folder, logits) in enumerate(zip(saved, expected, strict=True))
    ]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module


def _compare(folder: Path, found: Tensor, expected: Tensor) -> float:
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE:
        raise ReloadMismatchError(
            f"{folder} gives other logits after a reload: they differ by {difference:.2g}, allowed is 1e-5.",
            fix="Do not use this model. Please report it with the experiment's folder.",
        )
    return difference


def reload_logits(request: Path, answer: Path) -> None:
    """What the fresh process does: read each ``final_model`` from the disk alone and write its logits."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    folders = [Path(folder) for folder in asked["folders"]]
    files = locate_base_model(ModelLabels.read(folders[0]).base_model)
    needs = BaseNeeds.of_saved(json.loads((folders[0] / CONFIG_FILE).read_text(encoding="utf-8")))
    device = torch.device(asked["device"])
    base = load_any_base(files.config, files.folder, files.weights, dtype=torch.float32, device=device, needs=needs)
    read_alike: dict[tuple[bytes, int], TokenRows] = {}  # a tokenizer takes as long to read as a base
    logits = {}
    for index, folder in enumerate(folders):
        labels = ModelLabels.read(folder)
        kind = (folder / "tokenizer.json").read_bytes(), labels.max_length
        if kind not in read_alike:
            read_alike[kind] = tokenize(
                load_tokenizer(folder), asked["texts"], asked["pairs"], max_length=labels.max_length
            )
        bank = AdapterBank(base, [load_adapter(folder, base, labels=labels.count)])
        logits[str(index)] = predict_logits(bank, 0, read_alike[kind])
    save_file(logits, answer)
