"""Models that run through their base's own module are served like any other, beside those that do not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from loramill.base_models import locate_base_model
from loramill.engine.adapters import BaseNeeds, load_any_base, new_adapter
from loramill.engine.bank import AdapterBank
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec
from loramill.engine.step import predict_logits
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.inference.answers import Logits
from loramill.inference.batcher import BatchLimits
from loramill.inference.model_service import ModelService
from loramill.inference.predictor import Predictor
from loramill.inference.request_limits import RequestLimits, Texts
from served_models import Experiments, drawn_adapter
from small_modules import save_small_module

TEXTS = ["a b c", "the", "x y z q r s t u v w", "m n o p a b"]
MODULES = {"bert": ("query", "value"), "deberta-v2": ("query_proj", "value_proj"), "modernbert": ("Wqkv",)}


def module_experiments(results: Path, model: Path, *, dora: bool) -> Experiments:
    results.mkdir(exist_ok=True)
    files, needs = locate_base_model(str(model)), BaseNeeds(dora=dora)
    cpu = torch.device("cpu")
    base = load_any_base(files.config, files.folder, files.weights, dtype=torch.float32, device=cpu, needs=needs)
    return Experiments(results, model, base)


def drawn_module_adapter(experiments: Experiments, modules: tuple[str, ...], seed: int, *, dora: bool) -> Adapter:
    spec = AdapterSpec(rank=4, alpha=8, sites=(), dropout=0.0, labels=3, seed=seed, modules=modules, dora=dora)
    adapter = new_adapter(experiments.base, spec)
    drawn = torch.empty(adapter.values.shape).normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
    adapter.values += drawn
    return adapter


def logits_of(experiments: Experiments, adapter: Adapter) -> Logits:
    rows = tokenize(load_tokenizer(experiments.model), TEXTS, None, max_length=32)
    return predict_logits(AdapterBank(experiments.base, [adapter]), 0, rows).numpy()


@pytest.mark.parametrize("family", ["deberta-v2", "modernbert"])
def test_a_family_without_a_fast_path(tmp_path: Path, family: str) -> None:
    experiments = module_experiments(tmp_path / "results", save_small_module(family, tmp_path / family), dora=False)
    adapter = drawn_module_adapter(experiments, MODULES[family], 5, dora=False)
    expected = logits_of(experiments, adapter)
    found = Predictor.open(experiments.save("run", adapter)).predict(TEXTS)
    np.testing.assert_allclose(np.stack([one.logits for one in found]), expected, rtol=1e-5, atol=1e-5)


def test_dora_and_plain_models_of_one_base_under_many_requests(tmp_path: Path, small_bert: Path) -> None:
    plain = Experiments(tmp_path / "results", small_bert)
    expected: dict[str, Logits] = {}
    for seed in (1, 2):
        experiments = module_experiments(tmp_path / "results", small_bert, dora=True)
        adapter = drawn_module_adapter(experiments, MODULES["bert"], seed, dora=True)
        expected[f"dora{seed}"] = logits_of(experiments, adapter)
        experiments.save(f"dora{seed}", adapter)
    own = drawn_adapter(plain.base, 3)
    expected["plain"] = logits_of(plain, own)
    plain.save("plain", own)
    service = ModelService(plain.options(), batches=BatchLimits(workers=2), limits=RequestLimits(), default="plain")

    async def ask(name: str) -> None:
        found = await service.predict(name, Texts(TEXTS, None))
        np.testing.assert_allclose(np.stack([one.logits for one in found]), expected[name], rtol=1e-5, atol=1e-5)

    async def main() -> None:
        await service.start()
        await asyncio.gather(*(ask(name) for name in [*expected] * 8))
        assert len({model.base for model in service.host.resident}) == 2
        await service.stop()

    asyncio.run(main())
