"""A trained model in the shape that others take: PEFT adapter, one merged Transformers model, or ONNX.

Nothing leaves that was not checked: what was written is loaded again by the library that it is for, and must give the
logits of the model that was trained.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loramill.base_models import BaseModelFiles, locate_base_model
from loramill.engine.adapters import BaseNeeds, load_any_base
from loramill.engine.bank import AdapterBank
from loramill.engine.model_labels import ModelLabels
from loramill.engine.module_base import PADDED_ON_THE_LEFT, adjust_decoder, quiet_transformers
from loramill.engine.peft_format import CONFIG_FILE, load_adapter
from loramill.engine.step import predict_logits
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import ConflictError, ModelError, NotFoundError, ReloadMismatchError
from loramill.experiments.folder import ExperimentFolder, read_json
from loramill.files import named_storage_errors, publish_folder, write_json

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

ExportFormat = Literal["adapter", "merged", "onnx"]

MERGED_TOLERANCE = 1e-4
"""Merging adds B A to W once in float32; the sums are then rounded in another order than in training."""

ONNX_FILE = "model.onnx"
TOKENIZER_CONFIG = "tokenizer_config.json"
OPSET = 18
PROBES = (
    "A film that knows what it wants.",
    "no",
    "The plot is thin, the jokes are old, and after an hour even the dog on the sofa had left the room.",
    "這部電影的節奏有點慢，但結局讓人意想不到。",
    "12.50 EUR?! <b>Never</b> again :-(",
    "very " * 60,
)
"""Texts of many lengths, for logits to be compared on."""


@dataclass(frozen=True)
class Export:
    """What was written, and the largest difference of a logit from the trained model's."""

    folder: Path
    difference: float


def export_model(experiment: ExperimentFolder, target: Path, kind: ExportFormat) -> Export:
    """Write an experiment's model to a new folder.

    Raises:
        NotFoundError: the experiment has no finished model, or a package that the format needs is not installed.
        ConflictError: ``target`` exists.
        UnwritableError, DiskFullError, StorageError: ``target`` cannot be made.
        ModelError: ONNX has no graph for this family.
        ReloadMismatchError: what was written gives other logits; it was removed.
    """
    model = experiment.final_model
    if not model.is_dir():
        raise NotFoundError(f"Experiment {experiment.id!r} has no finished model.")
    if target.exists():
        raise ConflictError(f"{target} exists already.", fix="Name another folder with --to.")
    files = locate_base_model(ModelLabels.read(model).base_model)
    staged = target.with_name(f".{target.name}.part")
    with named_storage_errors(target):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
    try:
        with _quiet():
            difference = _WRITERS[kind](model, files, staged)
        publish_folder(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Export(target, difference)


def _write_adapter(model: Path, files: BaseModelFiles, staged: Path) -> float:
    """The adapter as training saved it, read back by PEFT."""
    from peft import PeftModel

    shutil.copytree(model, staged, dirs_exist_ok=True)
    found = PeftModel.from_pretrained(_base_classifier(model, files), staged)
    return _check(found, staged, model, files)


def _write_merged(model: Path, files: BaseModelFiles, staged: Path) -> float:
    """One model without an adapter, read back by Transformers."""
    from transformers import AutoModelForSequenceClassification

    _merge(model, files).save_pretrained(staged)
    _copy_tokenizer(files, staged)
    return _check(AutoModelForSequenceClassification.from_pretrained(staged), staged, model, files)


def _write_onnx(model: Path, files: BaseModelFiles, staged: Path) -> float:
    """The merged model as an ONNX graph for any number of rows and tokens, read back by ONNX Runtime."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise NotFoundError(f"{error.name} is not installed.", fix="pip install 'loramill[onnx]'") from error
    merged = _merge(model, files)
    merged.config.save_pretrained(staged)
    _copy_tokenizer(files, staged)
    inputs = _encode(staged, model, merged.config)
    _trace(merged, inputs, staged / ONNX_FILE)
    session = onnxruntime.InferenceSession(staged / ONNX_FILE, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
    return _compare(torch.from_numpy(found), _trained_logits(model, files))


def _trace(merged: PreTrainedModel, inputs: Mapping[str, Tensor], file: Path) -> None:
    """
    Raises:
        ModelError: PyTorch cannot make a graph of this family.
    """
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens")
    try:
        torch.onnx.export(
            merged,
            kwargs=dict(inputs),
            f=file,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes={name: {0: rows, 1: tokens} for name in inputs},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        why = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ModelError(
            f"PyTorch's ONNX exporter cannot export a model of the family {merged.config.model_type}: {why}",
            fix="Use --format merged, or a newer torch and onnxscript.",
        ) from error


_WRITERS = {"adapter": _write_adapter, "merged": _write_merged, "onnx": _write_onnx}


def _merge(model: Path, files: BaseModelFiles) -> PreTrainedModel:
    from peft import PeftModel

    merged: Any = PeftModel.from_pretrained(_base_classifier(model, files), model).merge_and_unload()
    return merged.eval()  # type: ignore[no-any-return]


def _base_classifier(model: Path, files: BaseModelFiles) -> PreTrainedModel:
    """The base with an empty head of the right size, which the adapter fills."""
    from transformers import AutoModelForSequenceClassification

    labels = ModelLabels.read(model)
    names = dict(enumerate(labels.label_names)) or {0: "value"}
    classifier = AutoModelForSequenceClassification.from_pretrained(
        files.folder,
        num_labels=len(names),
        id2label=names,
        label2id={name: index for index, name in names.items()},
        problem_type=labels.problem_type,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # a base that was a classifier brings a head of its own
    )
    adjust_decoder(classifier.config)
    return classifier.eval()  # type: ignore[no-any-return]


def _copy_tokenizer(files: BaseModelFiles, target: Path) -> None:
    """The base's tokenizer; one that does not say what it is gets to be read as it stands, not as its family's."""
    for file in files.tokenizer_files:
        shutil.copyfile(file, target / file.name)
    if not (target / TOKENIZER_CONFIG).exists():
        has_segments = files.config.get("type_vocab_size", 0) > 1
        names = ["input_ids", *(["token_type_ids"] if has_segments else []), "attention_mask"]
        write_json(
            target / TOKENIZER_CONFIG, {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
        )


def _check(found: PreTrainedModel | PeftModel, written: Path, model: Path, files: BaseModelFiles) -> float:
    with torch.no_grad():
        logits = found.eval()(**_encode(written, model, found.config)).logits
    return _compare(logits, _trained_logits(model, files))


def _compare(found: Tensor, trained: Tensor) -> float:
    difference = float((found - trained).abs().max())
    if not difference <= MERGED_TOLERANCE:
        raise ReloadMismatchError(
            f"The exported model gives other logits: they differ by {difference:.2g}, allowed is {MERGED_TOLERANCE:g}.",
            fix="Nothing was exported. Please report it with the experiment's folder.",
        )
    return difference


def _trained_logits(model: Path, files: BaseModelFiles) -> Tensor:
    labels, cpu = ModelLabels.read(model), torch.device("cpu")
    needs = BaseNeeds.of_saved(read_json(model / CONFIG_FILE))
    base = load_any_base(files.config, files.folder, files.weights, dtype=torch.float32, device=cpu, needs=needs)
    rows = tokenize(load_tokenizer(model), PROBES, None, max_length=labels.max_length)
    return predict_logits(AdapterBank(base, [load_adapter(model, base, labels=labels.count)]), 0, rows)


def _encode(written: Path, model: Path, config: PretrainedConfig) -> dict[str, Tensor]:
    """The probes as Transformers' own tokenizer encodes them from what was written, so that it is checked as well.

    They are padded here, as the model reads them: a tokenizer may come without a padding token.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(written)
    max_length = ModelLabels.read(model).max_length
    encoded = [tokenizer(text, truncation=True, max_length=max_length) for text in PROBES]
    padding = {"input_ids": int(config.pad_token_id or 0)}
    side = "left" if config.model_type in PADDED_ON_THE_LEFT else "right"
    return {
        name: pad_sequence(
            [torch.tensor(one[name]) for one in encoded],
            batch_first=True,
            padding_value=padding.get(name, 0),
            padding_side=side,
        )
        for name in encoded[0]
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without bars, and without warnings of an export or of an empty head: what matters is checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
