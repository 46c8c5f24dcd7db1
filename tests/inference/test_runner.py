from __future__ import annotations

import numpy as np
import torch

from loramill.engine.bank import AdapterBank
from loramill.engine.step import predict_logits
from loramill.inference.answers import Logits
from loramill.inference.runner import BaseRunner, TokenisedText, tokenised_texts
from loramill.inference.saved_model import SavedModel
from loramill.inference.served_model import LoadedBase, ServedModel
from served_models import Experiments, drawn_adapter

TEXTS = ["a b c", "the", "x y z q r s t u v w", "a", "m n o p a b", "q", "b c d e f g h i j k l", "z z z z"]


def load_models(experiments: Experiments, count: int) -> list[ServedModel]:
    base = LoadedBase.load(str(experiments.model), device=torch.device("cpu"), dtype=torch.float32)
    return [
        ServedModel.load(SavedModel.read(experiments.save(f"run{seed}", drawn_adapter(experiments.base, seed))), base)
        for seed in range(count)
    ]


def texts_for(model: ServedModel) -> list[TokenisedText]:
    return tokenised_texts(model, model.base.tokenize(TEXTS, None, max_length=32))


def expected(experiments: Experiments, seed: int) -> Logits:
    """What the engine's own bank says of all texts."""
    base = LoadedBase.load(str(experiments.model), device=torch.device("cpu"), dtype=torch.float32)
    bank = AdapterBank(experiments.base, [drawn_adapter(experiments.base, seed)])
    logits: Logits = predict_logits(bank, 0, base.tokenize(TEXTS, None, max_length=32)).numpy()
    return logits


def test_every_text_gets_the_logits_of_its_own_model(experiments: Experiments) -> None:
    models = load_models(experiments, 3)
    mixed = [(seed, index, texts_for(models[seed])[index]) for index in range(len(TEXTS)) for seed in (2, 0, 1)]
    np.random.default_rng(0).shuffle(mixed)  # type: ignore[arg-type]
    found = BaseRunner(models[0].base).run([text for _, _, text in mixed])
    by_model = [expected(experiments, seed) for seed in range(3)]
    for (seed, index, _), logits in zip(mixed, found, strict=True):
        np.testing.assert_allclose(logits, by_model[seed][index], rtol=0, atol=1e-5)


def test_a_model_alone_on_its_base_is_merged_and_answers_the_same(experiments: Experiments) -> None:
    first, second = load_models(experiments, 2)
    runner = BaseRunner(first.base, merge_after=3)
    for _ in range(5):
        np.testing.assert_allclose(runner.run(texts_for(first)), expected(experiments, 0), rtol=0, atol=1e-4)
    assert runner.merged is first
    np.testing.assert_allclose(runner.run(texts_for(second)), expected(experiments, 1), rtol=0, atol=1e-5)
    both = runner.run(texts_for(first) + texts_for(second))
    np.testing.assert_allclose(both[len(TEXTS) :], expected(experiments, 1), rtol=0, atol=1e-5)
    assert runner.merged is first
    for _ in range(5):
        runner.run(texts_for(second))
    assert runner.merged is second


def test_models_that_share_a_base_are_never_merged(experiments: Experiments) -> None:
    first, second = load_models(experiments, 2)
    runner = BaseRunner(first.base, merge_after=2)
    for _ in range(4):
        runner.run(texts_for(first))
        runner.run(texts_for(first) + texts_for(second))
    assert runner.merged is None
