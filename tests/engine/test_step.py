"""Gradients of one step, however the batch is cut, and predictions in any batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from loramill.engine.bank import AdapterBank
from loramill.engine.losses import row_losses
from loramill.engine.step import AdapterBatch, LabelledTokens, accumulate_gradients, predict_logits
from loramill.engine.tokenizer import load_tokenizer, tokenize
from small_models import random_adapter, small_base

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = [" ".join(LETTERS[start : start + 1 + start % 9]) for start in range(17)]


def labelled(folder: Path) -> LabelledTokens:
    rows = tokenize(load_tokenizer(folder), TEXTS, None, max_length=20)
    return LabelledTokens(rows, torch.arange(len(TEXTS)) % 3, "single_label_classification")


@pytest.mark.parametrize("micro_rows", [1, 2, 5, 16])
def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(small_model: Path, micro_rows: int) -> None:
    base = small_base(small_model, torch.float64)
    data, adapter = labelled(small_model), random_adapter(base)
    bank, chosen = AdapterBank(base, [adapter]), np.array([16, 3, 3, 9, 0, 12, 7])

    (whole,) = accumulate_gradients(bank, [AdapterBatch(0, data, chosen, len(chosen), None)])
    expected = adapter.grads.clone()
    adapter.grads.zero_()
    (cut,) = accumulate_gradients(bank, [AdapterBatch(0, data, chosen, micro_rows, None)])

    torch.testing.assert_close(adapter.grads, expected, rtol=1e-10, atol=1e-14)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-12)
    assert (cut.rows, cut.tokens) == (whole.rows, whole.tokens) == (7, int(data.rows.lengths[chosen].sum()))


def test_the_loss_is_the_mean_over_the_rows_that_were_chosen(small_model: Path) -> None:
    base = small_base(small_model)
    data, adapter = labelled(small_model), random_adapter(base)
    bank, chosen = AdapterBank(base, [adapter]), np.array([4, 11, 2])
    (result,) = accumulate_gradients(bank, [AdapterBatch(0, data, chosen, 2, None)])
    logits = predict_logits(bank, 0, data.rows)
    expected = row_losses(logits[chosen], data.labels[chosen], data.problem_type).mean()
    assert result.loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("token_budget", [1, 17, 10_000])
def test_predictions_come_in_order_whatever_the_batches(small_model: Path, token_budget: int) -> None:
    base = small_base(small_model, torch.float64)
    rows, bank = labelled(small_model).rows, AdapterBank(base, [random_adapter(base)])
    logits = predict_logits(bank, 0, rows, token_budget=token_budget)
    assert logits.shape == (len(TEXTS), 3)
    for row, text in enumerate(TEXTS):
        alone = predict_logits(bank, 0, tokenize(load_tokenizer(small_model), [text], None, max_length=20))
        torch.testing.assert_close(logits[row], alone[0], rtol=0, atol=1e-12)


def test_steps_of_several_adapters_are_those_of_each_alone(small_model: Path) -> None:
    base = small_base(small_model)
    data = labelled(small_model)
    adapters = [random_adapter(base), random_adapter(base, rank=2, labels=4, sites=("up", "down"))]
    chosen = [np.array([1, 5, 9]), np.array([2, 3, 4, 5])]
    work = [AdapterBatch(index, data, rows, 2, None) for index, rows in enumerate(chosen)]
    together = accumulate_gradients(AdapterBank(base, adapters), work)
    grads = [adapter.grads.clone() for adapter in adapters]
    for adapter, rows, result, grad in zip(adapters, chosen, together, grads, strict=True):
        adapter.grads.zero_()
        (alone,) = accumulate_gradients(AdapterBank(base, [adapter]), [AdapterBatch(0, data, rows, 2, None)])
        assert alone.loss == pytest.approx(result.loss, rel=1e-5)
        torch.testing.assert_close(adapter.grads, grad, rtol=1e-4, atol=1e-6)
