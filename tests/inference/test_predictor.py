from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.inference.predictor import Predictor
from served_models import Experiments, drawn_adapter
from small_models import padded_inputs

TEXTS = ["a b c", "the", "x y z q r s t u v w", "a", "m n o p a b", "q", "b c d e f g h i j k l", "z z z z"]
PAIRS = ["d e", "f g h", "i", "j k l m", "n", "o p q r s", "t", "u v w"]


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_logits_are_pefts_within_1e_5(experiments: Experiments, pairs: list[str] | None) -> None:
    folder = experiments.save("run", drawn_adapter(experiments.base, 3))
    found = Predictor.open(folder).predict(TEXTS, pairs)
    plain = AutoModelForSequenceClassification.from_pretrained(experiments.model, num_labels=3)
    oracle = peft.PeftModel.from_pretrained(plain, folder.final_model).eval()
    rows = tokenize(load_tokenizer(experiments.model), TEXTS, pairs, max_length=32)
    with torch.inference_mode():
        expected = oracle(**padded_inputs(rows, "bert")).logits.numpy()
    np.testing.assert_allclose(np.stack([one.logits for one in found]), expected, rtol=0, atol=1e-5)
    assert [one.answer.label for one in found] == expected.argmax(1).tolist()
    assert len({tuple(one.logits) for one in found}) == len(TEXTS), "or a wrong order would not show"


def test_a_prediction_says_where_it_comes_from(experiments: Experiments) -> None:
    folder = experiments.save_constant("run", 7)
    (found,) = Predictor.open(folder).predict(["這部電影很好看"])
    body = found.as_dict()
    assert list(body)[:5] == ["label", "probability", "latency_ms", "base_model", "language"]
    assert (body["label"], body["label_name"], body["experiment_id"]) == (7, "class 7", "run")
    assert body["probability"] == pytest.approx(1.0, abs=1e-6)
    assert body["latency_ms"] > 0
    assert (body["language"], body["text_language"]) == ("English", "Chinese")
    assert "written in Chinese" in body["warning"]


def test_no_texts_no_predictions(experiments: Experiments) -> None:
    assert Predictor.open(experiments.save_constant("run", 1)).predict([]) == []
