"""One model and one caller: what ``loramill predict`` and scripts use. For many callers see ``service``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loramill.engine.token_rows import TokenRows, batches_of_tokens
from loramill.experiments.folder import ExperimentFolder
from loramill.inference.answers import Answer, Logits, read_answer
from loramill.inference.languages import language_warning, text_language
from loramill.inference.runner import NO_LOGITS, BaseRunner, tokenised_texts
from loramill.inference.saved_model import SavedModel
from loramill.inference.served_model import BaseKind, LoadedBase, ServedModel

BATCH_TOKENS = 4096
"""Tokens of one forward pass, when nobody else waits."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one text, and where it comes from.

    Attributes:
        logits: ``[labels]``.
        latency_ms: from the call to the answer, for all texts of the call together.
    """

    answer: Answer
    logits: Logits
    latency_ms: float
    model: ServedModel
    text: str

    def as_dict(self) -> dict[str, Any]:
        """The response of the service."""
        saved, base = self.model.saved, self.model.base
        return {
            "label": self.answer.label,
            "probability": self.answer.probability,
            "latency_ms": round(self.latency_ms, 2),
            "base_model": base.name,
            "language": base.language,
            "label_name": self.answer.label_name,
            "text_language": text_language(self.text),
            "warning": language_warning(base.language, self.text),
            "experiment_id": saved.experiment_id,
            "adapter_version": saved.version,
        }


class Predictor:
    """Answers texts with one model."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self._runner = BaseRunner(model.base)

    @classmethod
    def open(
        cls,
        experiment: ExperimentFolder,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Predictor:
        """Load an experiment's model with its base. In float32 on the CPU its logits are PEFT's within 1e-5.

        Raises:
            AdapterFormatError: the experiment has no model that can be used.
            ModelNotFoundError: its base is not on this machine.
        """
        saved = SavedModel.read(experiment)
        kind = BaseKind.of(saved)
        base = LoadedBase.load(kind.name, device=torch.device(device), dtype=dtype, needs=kind.needs)
        return cls(ServedModel.load(saved, base))

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Prediction]:
        """The answer for every text, or pair of texts, in order."""
        start = time.perf_counter()
        model = self.model
        rows = model.base.tokenize(texts, pairs, max_length=model.saved.labels.max_length)
        logits = self._logits(rows)
        latency_ms = (time.perf_counter() - start) * 1000
        return [
            Prediction(read_answer(row, model.saved.labels), row, latency_ms, model, text)
            for text, row in zip(texts, logits, strict=True)
        ]

    def _logits(self, rows: TokenRows) -> list[Logits]:
        texts = tokenised_texts(self.model, rows)
        found: list[Logits] = [NO_LOGITS] * len(texts)
        for chosen in batches_of_tokens(rows.lengths, BATCH_TOKENS):
            for index, logits in zip(chosen, self._runner.run([texts[index] for index in chosen]), strict=True):
                found[index] = logits
        return found
