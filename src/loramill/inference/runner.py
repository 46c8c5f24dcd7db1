"""One forward pass for texts of many models on one base."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock

import numpy as np
import torch

from loramill.engine.bank import AdapterBank
from loramill.engine.forward import Bank, classify
from loramill.engine.module_base import ModuleAdapter
from loramill.engine.serving_bank import PackedAdapter, ServingBank, merge_adapter
from loramill.engine.token_rows import IntArray, TokenRows
from loramill.inference.answers import Logits
from loramill.inference.served_model import LoadedBase, ServedModel

MERGE_AFTER = 64

NO_LOGITS: Logits = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class TokenisedText:
    """A text as its model's base reads it; both arrays int64 ``[tokens]``."""

    model: ServedModel
    token_ids: IntArray
    type_ids: IntArray


def tokenised_texts(
    model: ServedModel, rows: TokenRows, first: int = 0, last: int | None = None
) -> list[TokenisedText]:
    """Rows ``first`` to ``last`` (half-open) for one model, each as views of the flat arrays."""
    edges = rows.starts[first : len(rows) + 1 if last is None else last + 1].tolist()
    return [TokenisedText(model, rows.token_ids[start:end], rows.type_ids[start:end]) for start, end in pairwise(edges)]


class BaseRunner:
    """Runs batches on one base. Several threads may call it.

    A model that has the base for itself is merged into a copy of the weights that it changes: its batches then cost
    what the bare base costs. As soon as a batch has another model in it, the bank serves them both.

    Args:
        merge_after: batches in a row that were for one model alone, after which it gets merged weights.
    """

    def __init__(self, base: LoadedBase, *, merge_after: int = MERGE_AFTER) -> None:
        self.base = base
        self._merge_after = merge_after
        self._merged: tuple[ServedModel, ServingBank] | None = None
        self._alone: tuple[ServedModel | None, int] = (None, 0)
        self._alone_in_base = contextlib.nullcontext() if base.frozen.reentrant else Lock()

    @property
    def merged(self) -> ServedModel | None:
        """The model with merged weights, if one has them."""
        return self._merged[0] if self._merged else None

    @torch.inference_mode()
    def run(self, texts: Sequence[TokenisedText]) -> list[Logits]:
        """The logits of every text, ``[labels]`` each."""
        rows = TokenRows(
            token_ids=np.concatenate([text.token_ids for text in texts]),
            type_ids=np.concatenate([text.type_ids for text in texts]),
            starts=np.cumsum([0, *(len(text.token_ids) for text in texts)]),
        )
        of_model: dict[ServedModel, list[int]] = {}
        for index, text in enumerate(texts):
            of_model.setdefault(text.model, []).append(index)
        chosen = [rows.sorted_by_length(np.asarray(indices)) for indices in of_model.values()]
        parts = [(position, rows, part) for position, part in enumerate(chosen)]
        batch = self.base.frozen.batch_of(parts)
        found: list[Logits] = [NO_LOGITS] * len(texts)
        with self._alone_in_base:
            answers = classify(self._bank(list(of_model)), batch)
        for part, logits in zip(chosen, answers, strict=True):
            for index, values in zip(part, logits.cpu().numpy(), strict=True):
                found[index] = values
        return found

    def _bank(self, models: list[ServedModel]) -> Bank:
        of_module = [model.adapter for model in models if isinstance(model.adapter, ModuleAdapter)]
        if of_module:  # a base is all module or none
            return AdapterBank(self.base.frozen, of_module)
        if len(models) > 1:
            self._alone = (None, 0)
        else:
            self._count(models[0])
            if self._merged and self._merged[0] is models[0]:
                return self._merged[1]
        return ServingBank(self.base.frozen, [_packed(model) for model in models])

    def _count(self, model: ServedModel) -> None:
        before, count = self._alone
        count = count + 1 if model is before else 1
        self._alone = (model, count)
        if count == self._merge_after:
            self._merged = (model, merge_adapter(self.base.frozen, _packed(model)))


def _packed(model: ServedModel) -> PackedAdapter:
    if not isinstance(model.adapter, PackedAdapter):
        raise TypeError(f"{model.saved.experiment_id} runs through the module of its base")
    return model.adapter
