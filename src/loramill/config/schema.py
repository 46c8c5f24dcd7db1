"""The config tree: closed, typed, frozen. One schema drives YAML, flags, API bodies, forms and docs.

Every field carries a description, since the description is what ``loramill config schema``, the
command line's help and the web form show.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_NAME_LENGTH = 100
MAX_NAME_BYTES = 200
"""A file system takes 255 in a folder's name, and the name of a sweep's adds up to 40."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


def is_storable(text: str) -> bool:
    """Whether file names and both databases can hold a text: no NUL, and no half of a surrogate pair."""
    return re.search("[\0\ud800-\udfff]", text) is None


def require_storable(text: str) -> str:
    """The text, for validators of pydantic. Raises ``ValueError``."""
    if not is_storable(text):
        raise ValueError("must be text without NUL and half characters")
    return text


def _check_experiment_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w .\-]*", name) or len(name) > MAX_NAME_LENGTH or name.endswith((".", " ")):
        raise ValueError("use 1 to 100 letters, digits, '_', '-', '.' or spaces, with a letter or digit first")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"use at most {MAX_NAME_BYTES} bytes of UTF-8, which are 66 Chinese characters")
    return name


def shortened_name(name: str, ending: str = "") -> str:
    """An experiment's name with an ASCII ending, cut before it so that both together are allowed."""
    room = name[: MAX_NAME_LENGTH - len(ending)].encode()[: MAX_NAME_BYTES - len(ending)]
    return room.decode(errors="ignore").rstrip(" .") + ending


def _check_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise ValueError("use auto, cpu, mps, cuda or cuda:<index>")
    return device


ExperimentName = Annotated[str, AfterValidator(_check_experiment_name)]
Device = Annotated[str, AfterValidator(_check_device)]


class Section(BaseModel):
    """A closed, immutable part of the tree: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*")
    @classmethod
    def _storable(cls, value: object) -> object:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                require_storable(text)
        return value


class ModelConfig(Section):
    name: str = Field(
        "distilbert-base-uncased",
        min_length=1,
        description="Base model: hub id, local folder, or package:<python package> that carries weights.",
    )
    num_labels: int | None = Field(
        None, ge=1, le=10_000, description="Number of classes; found from the data when not given. 1 means regression."
    )


class LoraConfig(Section):
    r: int = Field(8, ge=1, le=1024, description="Rank of the update matrices.")
    lora_alpha: float = Field(16, gt=0, description="Scale: the update is multiplied by lora_alpha / r.")
    target_modules: Literal["auto"] | list[str] = Field(
        "auto", description="Modules that get an adapter; auto picks query and value of the model family."
    )
    lora_dropout: Fraction = Field(0.1, description="Dropout on the input of every adapter while training.")
    bias: Literal["none"] = Field("none", description="Which biases train beside the adapter.")
    task_type: Literal["SEQ_CLS"] = Field("SEQ_CLS", description="Task, in PEFT's names.")
    use_rslora: bool = Field(False, description="Scale by lora_alpha / sqrt(r) (rsLoRA, arXiv:2312.03732).")
    loraplus_lr_ratio: float = Field(
        1.0, gt=0, description="Learning rate of B over that of A (LoRA+, arXiv:2402.12354); 1 is plain LoRA."
    )
    layers_to_transform: list[Annotated[int, Field(ge=0, lt=1000)]] | None = Field(
        None,
        description="Encoder layers that get an adapter, from 0; all if absent. Below the first nothing is learned.",
    )
    init_lora_weights: Literal["default", "pissa"] = Field(
        "default", description="How A and B start: default (B zero) or pissa (principal parts, arXiv:2404.02948)."
    )
    use_dora: bool = Field(
        False, description="DoRA (arXiv:2402.09353): magnitude and direction apart; computed by PEFT, slower."
    )

    @field_validator("layers_to_transform")
    @classmethod
    def _at_least_one_layer(cls, value: list[int] | None) -> list[int] | None:
        if value == []:
            raise ValueError("name at least one layer, or leave it out")
        return value

    @model_validator(mode="after")
    def _one_method(self) -> LoraConfig:
        if self.use_dora and self.init_lora_weights != "default":
            raise ValueError("use_dora and init_lora_weights: pissa cannot be had together")
        return self

    @field_validator("target_modules")
    @classmethod
    def _at_least_one(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("name at least one module, or say auto")
        return value


class ValidationRules(Section):
    min_text_length: int = Field(1, ge=0, description="Shorter texts (characters) are findings.")
    max_text_length: int = Field(100_000, ge=1, description="Longer texts (characters) are findings.")
    allow_empty: bool = Field(False, description="Whether empty texts may be trained on.")
    remove_html: bool = Field(False, description="Strip HTML tags and entities before training.")

    @model_validator(mode="after")
    def _ordered(self) -> ValidationRules:
        if self.min_text_length > self.max_text_length:
            raise ValueError("min_text_length must not exceed max_text_length")
        return self


class DataConfig(Section):
    dataset_name: str = Field(
        "glue",
        min_length=1,
        description="Hub id, file (csv, tsv, jsonl, parquet), folder with train.* and validation.*, "
        "sample:movie_reviews, sample:chinese_reviews, or version:<id>.",
    )
    dataset_config: str | None = Field(None, description="Configuration of a hub data set, such as sst2 of glue.")
    train_samples: int | None = Field(None, ge=1, description="Train on this many rows (seeded choice); all if absent.")
    eval_samples: int | None = Field(None, ge=1, description="Evaluate on this many rows; all if absent.")
    eval_fraction: float = Field(
        0.1, gt=0, lt=1, description="Share held out (seeded, stratified) when the data has no validation split."
    )
    max_length: int = Field(128, ge=4, le=8192, description="Longest text in tokens; what exceeds it is cut.")
    on_long_text: Literal["truncate", "refuse"] = Field("truncate", description="What to do with longer texts.")
    text_column: str | None = Field(None, description="Column of the text; found by itself when absent.")
    text_pair_column: str | None = Field(None, description="Column of the second text of a pair, if there is one.")
    label_column: str | None = Field(None, description="Column of the label; found by itself when absent.")
    on_findings: Literal["warn", "clean", "refuse"] = Field(
        "warn", description="What validation does with rows at fault: report them, clean them, or refuse to train."
    )
    validation_rules: ValidationRules = Field(default_factory=ValidationRules, description="Rules of validation.")


class TrainingConfig(Section):
    learning_rate: float = Field(5e-4, gt=0, le=1, description="Peak learning rate of AdamW.")
    num_train_epochs: float = Field(1, gt=0, le=10_000, description="Passes over the training rows; may be a fraction.")
    per_device_train_batch_size: int = Field(2, ge=1, le=65_536, description="Rows in one forward pass.")
    gradient_accumulation_steps: int = Field(1, ge=1, le=4096, description="Batches in one optimizer step.")
    eval_strategy: Literal["no", "steps", "epoch"] = Field("epoch", description="When to evaluate and save.")
    eval_steps: int | None = Field(
        None, ge=1, description="Evaluate every so many steps (eval_strategy: steps); logging_steps if absent."
    )
    save_steps: int | None = Field(
        None, ge=1, description="Save a checkpoint every so many steps, besides those at every evaluation."
    )
    logging_steps: int = Field(10, ge=1, description="Report loss and rate every so many steps.")
    device: Device = Field("auto", description="auto, cpu, mps, cuda or cuda:<index>.")
    output_dir: str = Field("results", min_length=1, description="Folder of experiments, within LORAMILL_HOME.")
    seed: int = Field(42, ge=0, lt=2**32, description="Decides the split, the order, the initial weights and dropout.")
    bf16: Literal["auto"] | bool = Field(
        "auto", description="Compute in bfloat16: auto where products are faster in it."
    )
    warmup_ratio: Fraction = Field(0.0, description="Share of the steps over which the rate rises from 0.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW weight decay (never on biases).")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field("linear", description="How the rate falls.")
    max_grad_norm: float = Field(1.0, ge=0, description="Clip the gradient's norm to this; 0 does not clip.")
    metric_for_best_model: str = Field("accuracy", description="Evaluation metric that chooses the best checkpoint.")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="Stop after so many evaluations without a better metric."
    )
    base_dropout: bool = Field(
        False, description="Keep the dropout of the frozen base while training; slower, as its own module computes it."
    )
    report_to: list[Literal["mlflow", "tensorboard", "wandb"]] = Field(
        default_factory=list, description="Trackers that receive the metrics as well."
    )
    max_seconds: float | None = Field(None, gt=0, description="Stop (checkpoint saved) after this time in seconds.")

    @field_validator("eval_strategy", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: object) -> object:
        """YAML 1.1 reads ``no`` as false."""
        return "no" if value is False else value

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_or_none(cls, value: object) -> object:
        """As Transformers takes it: a name alone, or ``none``; several with commas, as flags have them."""
        names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        return [] if names == ["none"] else names

    @model_validator(mode="after")
    def _evaluates_when_needed(self) -> TrainingConfig:
        if self.early_stopping_patience is not None and self.eval_strategy == "no":
            raise ValueError("early_stopping_patience needs eval_strategy: steps or epoch")
        return self

    @property
    def effective_batch_size(self) -> int:
        """Rows that one optimizer step learns from."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


class SystemConfig(Section):
    num_threads: int | None = Field(None, ge=1, le=1024, description="CPU threads for training; all cores if absent.")
    log_level: Literal["DEBUG", "INFO", "WARNING"] = Field("INFO", description="Least level written to logs.txt.")


class ExperimentConfig(Section):
    """Everything that decides a run."""

    experiment_name: ExperimentName = Field(
        "default_experiment", description="Name of the experiment; its folder adds the time."
    )
    model: ModelConfig = Field(default_factory=ModelConfig, description="The frozen base model.")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="The adapter.")
    data: DataConfig = Field(default_factory=DataConfig, description="What to train and evaluate on.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="How to train.")
    system: SystemConfig = Field(default_factory=SystemConfig, description="The machine.")
