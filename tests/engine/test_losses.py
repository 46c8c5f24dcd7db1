"""Row losses and probabilities against the losses that Transformers' models compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from loramill.engine.losses import probabilities, row_losses

KINDS = {
    "single_label_classification": (4, torch.tensor([0, 3, 1, 1, 2])),
    "multi_label_classification": (3, torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]]).float()),
    "regression": (1, torch.tensor([0.5, -1.25, 3.0, 0.0, 100.0])),
}


@pytest.mark.parametrize("problem_type", KINDS)
def test_the_mean_is_the_loss_of_transformers(small_bert: Path, problem_type: str) -> None:
    width, labels = KINDS[problem_type]
    model = AutoModelForSequenceClassification.from_pretrained(
        small_bert, num_labels=width, problem_type=problem_type
    ).eval()
    with torch.no_grad():
        output = model(input_ids=torch.randint(4, 20, (5, 6)), labels=labels)
    losses = row_losses(output.logits, labels, problem_type)
    assert losses.shape == (5,)
    torch.testing.assert_close(losses.mean(), output.loss)


def test_probabilities_by_kind() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    torch.testing.assert_close(probabilities(logits, "single_label_classification"), logits.softmax(1))
    torch.testing.assert_close(probabilities(logits, "multi_label_classification"), logits.sigmoid())
    assert torch.equal(probabilities(logits[:, :1], "regression"), logits[:, :1])
