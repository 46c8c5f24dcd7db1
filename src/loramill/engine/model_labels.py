"""``labels.json``: what a saved model's logits mean, and which base they need. Training writes it, serving reads it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from loramill.engine.losses import ProblemType
from loramill.errors import AdapterFormatError
from loramill.files import write_json

LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class ModelLabels:
    """The part of a saved model that is not weights.

    Attributes:
        label_names: name of every logit; empty for regression.
        base_model: ``model.name`` of the config.
        max_length: tokens that a text is cut to.
        base_hash: ``BaseModelFiles.content_hash`` of the base that it was trained on; "" when it is not known.
    """

    label_names: tuple[str, ...]
    problem_type: ProblemType
    base_model: str
    max_length: int
    base_hash: str = ""

    @property
    def count(self) -> int:
        """How many logits a text gets: one for each label, or the one value of a regression."""
        return max(1, len(self.label_names))

    def write(self, folder: Path) -> None:
        write_json(folder / LABELS_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> ModelLabels:
        """
        Raises:
            AdapterFormatError: the file is missing, or does not say all of this.
        """
        file = folder / LABELS_FILE
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            return cls(
                label_names=tuple(_checked(stored["label_names"], list)),
                problem_type=_problem_type(stored["problem_type"]),
                base_model=_checked(stored["base_model"], str),
                max_length=_checked(stored["max_length"], int),
                base_hash=_checked(stored.get("base_hash", ""), str),
            )
        except FileNotFoundError as error:
            raise AdapterFormatError(f"{folder} has no {LABELS_FILE}.", fix="Is it a finished experiment?") from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AdapterFormatError(f"{file} cannot be read: {error!r}") from error


def _checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value


def _problem_type(name: str) -> ProblemType:
    if name not in get_args(ProblemType):
        raise ValueError(f"unknown problem_type {name!r}")
    return name  # type: ignore[return-value]
