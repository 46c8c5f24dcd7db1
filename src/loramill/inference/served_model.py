"""A base in memory, and a model on it: an adapter that was checked, with what its answers mean."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import torch
from tokenizers import Tokenizer

from loramill.base_models import BaseModelFiles, locate_base_model
from loramill.engine.adapters import BaseNeeds, load_any_base, why_own_module
from loramill.engine.base import FrozenBase
from loramill.engine.module_base import ModuleAdapter
from loramill.engine.peft_format import load_adapter
from loramill.engine.serving_bank import PackedAdapter, pack_adapter
from loramill.engine.token_rows import TokenRows
from loramill.engine.tokenizer import load_tokenizer, tokenize
from loramill.errors import AdapterFormatError
from loramill.inference.languages import model_language
from loramill.inference.saved_model import SavedModel

PLAIN = BaseNeeds()


@dataclass(frozen=True)
class BaseKind:
    """What decides which models share a base.

    Attributes:
        needs: ``None`` on the engine's fast path, where every adapter fits the same base.
    """

    name: str
    needs: BaseNeeds | None

    @classmethod
    def of(cls, saved: SavedModel) -> BaseKind:
        """
        Raises:
            ModelNotFoundError, ModelError: there is no such base, or its files cannot be used.
            AdapterFormatError: the adapter's config cannot be read.
        """
        name, needs = saved.labels.base_model, saved.base_needs()
        return cls(name, needs if why_own_module(locate_base_model(name).config, needs) else None)


@dataclass(frozen=True, eq=False)
class LoadedBase:
    """A frozen base with its tokenizer; every adapter trained on it can be served from it.

    Attributes:
        name: ``model.name`` of the config.
        content_hash: of the weights, see ``BaseModelFiles``.
    """

    name: str
    frozen: FrozenBase
    tokenizer: Tokenizer
    language: str
    content_hash: str
    files: BaseModelFiles
    _tokenizing: Lock = field(default_factory=Lock)

    @classmethod
    def load(cls, name: str, *, device: torch.device, dtype: torch.dtype, needs: BaseNeeds | None = None) -> LoadedBase:
        """
        Args:
            needs: of models that run through the base's own module.

        Raises:
            ModelNotFoundError, ModelError: there is no such base, or it cannot be used.
        """
        files = locate_base_model(name)
        tokenizer = load_tokenizer(files.folder)
        return cls(
            name=name,
            frozen=load_any_base(
                files.config, files.folder, files.weights, dtype=dtype, device=device, needs=needs or PLAIN
            ),
            tokenizer=tokenizer,
            language=model_language(name, tokenizer.get_vocab()),
            content_hash=files.content_hash,
            files=files,
        )

    def tokenize(self, texts: Sequence[str], pairs: Sequence[str] | None, *, max_length: int) -> TokenRows:
        """Texts, or pairs of texts, as tokens; cut to ``max_length``, or to what the base can take.

        One thread at a time: the tokenizer keeps the limit as a state of its own.
        """
        limit = min(max_length, self.frozen.architecture.max_positions)
        with self._tokenizing:
            return tokenize(self.tokenizer, texts, pairs, max_length=limit)


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model, ready to answer. It never changes: another version is another object."""

    saved: SavedModel
    base: LoadedBase
    adapter: PackedAdapter | ModuleAdapter

    @property
    def nbytes(self) -> int:
        """Memory of the adapter."""
        return self.adapter.values.nbytes if isinstance(self.adapter, ModuleAdapter) else self.adapter.nbytes

    @classmethod
    def load(cls, saved: SavedModel, base: LoadedBase) -> ServedModel:
        """Read an adapter and check it; nothing of it is executed, since only safetensors and JSON are read.

        Raises:
            AdapterFormatError: it is damaged, not finite, of another kind, or for another base or tokenizer.
        """
        _check_base(saved, base)
        expected = saved.labels.count
        adapter = load_adapter(saved.folder, base.frozen, labels=expected)
        if adapter.spec.labels != expected:
            raise AdapterFormatError(f"{saved.folder}: {adapter.spec.labels} logits, but {expected} label names.")
        return cls(saved, base, adapter if isinstance(adapter, ModuleAdapter) else pack_adapter(base.frozen, adapter))


def _check_base(saved: SavedModel, base: LoadedBase) -> None:
    trained_on = saved.labels.base_hash
    if saved.labels.base_model != base.name or (trained_on and trained_on != base.content_hash):
        raise AdapterFormatError(
            f"{saved.folder} was trained on other weights than {base.name} has here.",
            fix="Install the base model that it was trained on, or train again.",
        )
    own, expected = saved.folder / "tokenizer.json", base.files.folder / "tokenizer.json"
    if own.is_file() and expected.is_file() and not filecmp.cmp(own, expected, shallow=False):
        raise AdapterFormatError(f"{saved.folder} was trained with another tokenizer than {base.name} has here.")
