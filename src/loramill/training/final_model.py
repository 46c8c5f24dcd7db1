"""The final model: adapter, head, tokenizer, labels and card in one folder, in PEFT's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loramill.base_models import BaseModelFiles
from loramill.config.schema import ExperimentConfig
from loramill.engine.base import FrozenBase
from loramill.engine.losses import ProblemType
from loramill.engine.low_rank_adapter import Adapter
from loramill.engine.model_labels import ModelLabels
from loramill.engine.peft_format import save_adapter
from loramill.engine.tokenizer import load_tokenizer
from loramill.files import named_storage_errors, publish_folder, write_atomic


def save_final_model(
    folder: Path,
    base: FrozenBase,
    adapter: Adapter,
    *,
    files: BaseModelFiles,
    config: ExperimentConfig,
    label_names: Sequence[str],
    problem_type: ProblemType,
    metrics: dict[str, Any],
) -> None:
    """Write ``final_model/`` whole or not at all.

    Raises:
        DiskFullError, UnwritableError, StorageError: a final model from before is untouched.
    """
    staged = folder.with_name(f".{folder.name}.part")
    try:
        with named_storage_errors(folder):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            _copy_tokenizer(files, staged)
        save_adapter(staged, base, adapter, base_name=files.reference)
        ModelLabels(
            label_names=tuple(label_names),
            problem_type=problem_type,
            base_model=config.model.name,
            max_length=min(config.data.max_length, base.architecture.max_positions),
            base_hash=files.content_hash,
        ).write(staged)
        write_atomic(staged / "README.md", model_card(config, files, label_names, metrics))
        publish_folder(staged, folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _copy_tokenizer(files: BaseModelFiles, folder: Path) -> None:
    for file in files.tokenizer_files:
        shutil.copyfile(file, folder / file.name)
    if not (folder / "tokenizer.json").exists():  # an older base, with a vocabulary only
        load_tokenizer(files.folder).save(str(folder / "tokenizer.json"))


def model_card(
    config: ExperimentConfig, files: BaseModelFiles, label_names: Sequence[str], metrics: dict[str, Any]
) -> str:
    """The model card, with the metadata block that the hub reads."""
    numbers = [f"| {name} | {value:.4f} |" for name, value in metrics.items() if isinstance(value, float)]
    data = " / ".join(filter(None, (config.data.dataset_name, config.data.dataset_config)))
    lora = config.lora
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(files.name)}",
            "library_name: peft",
            "pipeline_tag: text-classification",
            "tags: [lora, loramill]",
            "---",
            f"# {config.experiment_name}",
            "",
            f"A LoRA adapter (r {lora.r}, alpha {lora.lora_alpha:g}) on `{config.model.name}`, trained on {data}.",
            f"Labels: {', '.join(label_names)}.",
            "",
            "| metric (evaluation split) | value |",
            "|---|---|",
            *numbers,
            "",
            "Load it with `PeftModel.from_pretrained(base, folder)`, where base is "
            f"`AutoModelForSequenceClassification.from_pretrained(..., num_labels={max(1, len(label_names))})`.",
            "",
        ]
    )
