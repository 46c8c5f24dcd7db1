"""64 adapters on one base, asked for by Zipf's law: loramill's packed batches beside PEFT's ``adapter_names``.

    python benchmarks/serving/many_adapters.py               # 64 adapters, 1,920 texts, 5 rounds
    python benchmarks/serving/many_adapters.py --texts 320 --rounds 1

In one process, no HTTP: texts/s, tokenising included. PEFT runs as its users run it: float32, batches of 32 in the
order of arrival, padded to the longest. loramill gets the same texts as single requests through the service's own
batcher, with as many on the way as ``--clients`` says; "one merged model" is the same with one model for all texts,
merged from the start. The rounds go forwards and backwards. Also shown: how far float32 logits are from those of every
adapter merged by PEFT.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import peft
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from workload import DEFAULT_HOME, heading, held_out_texts, quiet_transformers, spread, variants, zipf_weights

from loramill.inference.answers import Logits
from loramill.inference.batcher import Batcher
from loramill.inference.defaults import default_batch_limits
from loramill.inference.saved_model import SavedModel
from loramill.inference.served_model import LoadedBase, ServedModel

PEFT_BATCH = 32
CPU = torch.device("cpu")
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Work = Callable[[], list[Logits]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=64)
    parser.add_argument("--texts", type=int, default=1920)
    parser.add_argument("--clients", type=int, default=128, help="requests on the way at any time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, default=DEFAULT_HOME)
    options = parser.parse_args()
    quiet_transformers()
    folders = [folder.final_model for folder in variants(options.home, options.adapters)]
    saved = [SavedModel.read(folder) for folder in variants(options.home, options.adapters)]
    available = held_out_texts(options.home)
    texts = [available[number % len(available)] for number in range(options.texts)]
    chosen = random.Random(0).choices(range(options.adapters), zipf_weights(options.adapters), k=len(texts))
    works: dict[str, Work] = {
        "PEFT adapter_names, fp32": peft_mixed(folders, saved[0].labels.base_model, texts, chosen),
        "PEFT, one merged model, fp32": peft_merged(folders[0], saved[0].labels.base_model, texts),
    }
    for kind, dtype in TYPES.items():
        base = LoadedBase.load(saved[0].labels.base_model, device=CPU, dtype=dtype)
        models = [ServedModel.load(model, base) for model in saved]
        works[f"loramill, {options.adapters} adapters, {kind}"] = ours(models, texts, chosen, options.clients)
        works[f"loramill, one merged model, {kind}"] = ours(models, texts, [0] * len(texts), options.clients)
    rates: dict[str, list[float]] = {name: [] for name in works}
    answers: dict[str, list[Logits]] = {}
    for turn in range(options.rounds):
        for name in works if turn % 2 == 0 else reversed(works):
            start = time.perf_counter()
            answers[name] = works[name]()
            rates[name].append(len(texts) / (time.perf_counter() - start))
            print(f"{name}: {rates[name][-1]:.1f} texts/s", file=sys.stderr)
    print(table(rates, options.adapters))
    exact = answers[f"loramill, {options.adapters} adapters, fp32"]
    largest = difference(folders, saved, texts, chosen, exact)
    print(f"\nLargest difference of float32 logits from PEFT's merged models: {largest:.2g}")


def ours(models: Sequence[ServedModel], texts: Sequence[str], chosen: Sequence[int], clients: int) -> Work:
    async def answer_all() -> list[Logits]:
        batcher = Batcher(replace(default_batch_limits(CPU), merge_after=1))
        found: list[Logits] = [None] * len(texts)  # type: ignore[list-item]
        numbers = iter(range(len(texts)))

        async def client() -> None:
            for number in numbers:
                (found[number],) = await batcher.classify(models[chosen[number]], [texts[number]], None)

        await asyncio.gather(*(client() for _ in range(clients)))
        await batcher.close()
        return found

    return lambda: asyncio.run(answer_all())


def peft_mixed(folders: Sequence[Path], base_name: str, texts: Sequence[str], chosen: Sequence[int]) -> Work:
    tokenizer, plain = transformers_base(base_name)
    names = [f"a{number}" for number in range(len(folders))]
    model = peft.PeftModel.from_pretrained(plain, folders[0], adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, adapter_name=name)
    model.eval()
    return lambda: in_batches(
        tokenizer, texts, lambda inputs, part: model(**inputs, adapter_names=[names[i] for i in chosen[part]]).logits
    )


def peft_merged(folder: Path, base_name: str, texts: Sequence[str]) -> Work:
    tokenizer, plain = transformers_base(base_name)
    model = peft.PeftModel.from_pretrained(plain, folder).merge_and_unload().eval()
    return lambda: in_batches(tokenizer, texts, lambda inputs, part: model(**inputs).logits)


def transformers_base(base_name: str) -> tuple[AutoTokenizer, torch.nn.Module]:
    from loramill.base_models import locate_base_model

    folder = locate_base_model(base_name).folder
    return AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2
    )


def in_batches(tokenizer: AutoTokenizer, texts: Sequence[str], forward: Callable[..., torch.Tensor]) -> list[Logits]:
    found: list[Logits] = []
    with torch.inference_mode():
        for first in range(0, len(texts), PEFT_BATCH):
            part = slice(first, first + PEFT_BATCH)
            inputs = tokenizer(texts[part], return_tensors="pt", padding=True, truncation=True, max_length=128)
            found += list(forward(inputs, part).numpy())
    return found


def difference(
    folders: Sequence[Path],
    saved: Sequence[SavedModel],
    texts: Sequence[str],
    chosen: Sequence[int],
    found: list[Logits],
) -> float:
    """The largest absolute difference of the logits from those of every text's own adapter, merged by PEFT."""
    largest = 0.0
    for number in set(chosen):
        rows = [row for row, model in enumerate(chosen) if model == number]
        expected = peft_merged(folders[number], saved[number].labels.base_model, [texts[row] for row in rows])()
        pairs = zip(rows, expected, strict=True)
        largest = max(largest, *(float(abs(found[row] - logits).max()) for row, logits in pairs))
    return largest


def table(rates: dict[str, list[float]], adapters: int) -> str:
    mixed = rates["PEFT adapter_names, fp32"]
    lines = [heading(), "", "| | texts/s | x PEFT adapter_names | x own merged model |", "|---|---|---|---|"]
    for name, own in rates.items():
        kind = name.rpartition(" ")[2]
        merged = rates[
            "PEFT, one merged model, fp32" if name.startswith("PEFT") else f"loramill, one merged model, {kind}"
        ]
        ratios = [spread([a / b for a, b in zip(own, other, strict=True)], "{:.2f}") for other in (mixed, merged)]
        lines.append(f"| {name} | {spread(own)} | {ratios[0]} | {ratios[1]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
