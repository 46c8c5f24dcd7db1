"""The frozen base: an encoder's weights, loaded once in the compute type, shared by every adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loramill.engine.batching import Attention, Batch, build_batch
from loramill.engine.families import Architecture, HeadLayer, read_architecture
from loramill.engine.linear import Linear
from loramill.engine.token_rows import IntArray, TokenRows
from loramill.errors import ModelError


@dataclass(frozen=True)
class EmbeddingWeights:
    """``token_type`` and ``projection`` are absent in the families that have none."""

    word: Tensor
    position: Tensor
    token_type: Tensor | None
    norm: Linear
    projection: Linear | None


@dataclass(frozen=True)
class LayerWeights:
    """One encoder layer; query, key and value are one matrix ``[3 * hidden, hidden]``, so that one GEMM serves all."""

    qkv: Linear
    attention_output: Linear
    attention_norm: Linear
    up: Linear
    down: Linear
    output_norm: Linear


@dataclass(frozen=True)
class FrozenBase:
    """An encoder that never changes.

    Attributes:
        head: frozen head layers by path: those that the checkpoint carries, such as BERT's pooler; never below float32.
    """

    architecture: Architecture
    embeddings: EmbeddingWeights
    layers: tuple[LayerWeights, ...]
    head: Mapping[str, Linear]

    @property
    def reentrant(self) -> bool:
        """Whether several forward passes may run at the same time."""
        return True

    @property
    def dtype(self) -> torch.dtype:
        return self.layers[0].qkv.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.layers[0].qkv.weight.device

    @property
    def attention(self) -> Attention:
        """How rows attend here: CUDA has kernels for rows as they lie, in 16 bits only."""
        if self.device.type == "cpu":
            return "rows"
        return "flat" if self.device.type == "cuda" and self.dtype.itemsize == 2 else "padded"

    @property
    def row_multiple(self) -> int:
        """Forward passes are fastest with a multiple of so many rows: see ``linear.PACKED_ROW_MULTIPLE``."""
        return self.layers[-1].qkv.row_multiple if self.layers else 1

    def batch_of(self, parts: Sequence[tuple[int, TokenRows, IntArray]]) -> Batch:
        """Rows of one or several adapters as this base's forward pass likes them, see ``build_batch``."""
        return build_batch(parts, device=self.device, attention=self.attention, multiple=self.row_multiple)

    @cached_property
    def last_query(self) -> Linear:
        """The last layer's query alone: the pooled pass needs it for the first tokens only."""
        return _rows(self.layers[-1].qkv, 0, self.architecture.hidden_size)

    @cached_property
    def last_key_value(self) -> Linear:
        """The last layer's key and value side by side."""
        return _rows(self.layers[-1].qkv, self.architecture.hidden_size, 3 * self.architecture.hidden_size)

    def lay_out(self) -> None:
        """Bring every weight into the order that its hardware likes, see ``Linear.lay_out``."""
        for layer in self.layers[:-1]:
            layer.qkv.lay_out()
        for linear in (self.last_query, self.last_key_value):
            linear.lay_out()
        for layer in self.layers:
            for linear in (layer.attention_output, layer.up, layer.down):
                linear.lay_out()

    def trained_head(self) -> tuple[HeadLayer, ...]:
        """The head layers that every adapter trains and saves for itself."""
        return tuple(layer for layer in self.architecture.family.head if layer.path not in self.head)


def _rows(linear: Linear, first: int, last: int) -> Linear:
    return Linear(linear.weight[first:last], linear.bias[first:last])


def load_base(
    config: Mapping[str, object], weights: Sequence[Path], *, dtype: torch.dtype, device: torch.device
) -> FrozenBase:
    """Read an encoder from safetensors files.

    Args:
        config: the model's ``config.json``.
        weights: one file, or all shards.
        dtype: compute type of weights and activations.

    Raises:
        ModelError: an unknown family, a missing tensor, a wrong shape, or a damaged file.
    """
    architecture = read_architecture(config)
    checkpoint = _Checkpoint(architecture, weights, dtype, device)
    shared: dict[str, LayerWeights] = {}
    layers = []
    for index in range(architecture.layers):
        path = architecture.layer_path(index)
        if path not in shared:
            shared[path] = _load_layer(checkpoint, path)
        layers.append(shared[path])
    base = FrozenBase(architecture, _load_embeddings(checkpoint), tuple(layers), _load_head(checkpoint))
    _check_shapes(base)
    return base


def _check_shapes(base: FrozenBase) -> None:
    """Weights of another size than the config says would fail far from the cause, or not at all."""
    architecture, hidden = base.architecture, base.architecture.hidden_size
    positions = architecture.max_positions + architecture.position_offset
    sizes = [("position embeddings", base.embeddings.position, (positions, base.embeddings.word.shape[1]))]
    for layer in base.layers:
        sizes += [
            ("query, key and value", layer.qkv.weight, (3 * hidden, hidden)),
            ("attention output", layer.attention_output.weight, architecture.site_shape("attention_output")),
            ("feed-forward", layer.up.weight, architecture.site_shape("up")),
            ("feed-forward output", layer.down.weight, architecture.site_shape("down")),
        ]
    for what, tensor, shape in sizes:
        if tensor.shape != shape:
            raise ModelError(
                f"The base model's {what} have the shape {list(tensor.shape)}; its config.json says {list(shape)}.",
                fix="Use the config.json and the weights of the same model.",
            )


def _load_embeddings(checkpoint: _Checkpoint) -> EmbeddingWeights:
    family = checkpoint.architecture.family
    token_type, projection = family.type_embeddings, family.embeddings_projection
    return EmbeddingWeights(
        word=checkpoint.tensor(f"{family.word_embeddings}.weight"),
        position=checkpoint.tensor(f"{family.position_embeddings}.weight"),
        token_type=checkpoint.tensor(f"{token_type}.weight") if token_type else None,
        norm=checkpoint.linear(family.embeddings_norm),
        projection=checkpoint.linear(projection) if projection else None,
    )


def _load_layer(checkpoint: _Checkpoint, path: str) -> LayerWeights:
    family = checkpoint.architecture.family
    query, key, value = (checkpoint.linear(f"{path}.{family.sites[site]}") for site in ("query", "key", "value"))
    return LayerWeights(
        qkv=Linear(torch.cat([query.weight, key.weight, value.weight]), torch.cat([query.bias, key.bias, value.bias])),
        attention_output=checkpoint.linear(f"{path}.{family.sites['attention_output']}"),
        attention_norm=checkpoint.linear(f"{path}.{family.attention_norm}"),
        up=checkpoint.linear(f"{path}.{family.sites['up']}"),
        down=checkpoint.linear(f"{path}.{family.sites['down']}"),
        output_norm=checkpoint.linear(f"{path}.{family.output_norm}"),
    )


def _load_head(checkpoint: _Checkpoint) -> dict[str, Linear]:
    prefix = f"{checkpoint.architecture.family.prefix}."
    paths = [layer.path for layer in checkpoint.architecture.family.head if layer.pretrained]
    names = {path: path.removeprefix(prefix) for path in paths}
    return {path: checkpoint.linear(name, exact=True) for path, name in names.items() if f"{name}.weight" in checkpoint}


class _Checkpoint:
    """Tensors by their name without the family's prefix, read from safetensors when they are asked for."""

    def __init__(
        self, architecture: Architecture, files: Sequence[Path], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.architecture = architecture
        self._dtype, self._device = dtype, device
        self._where = {_plain(name, architecture): (file, name) for file, name in _names(files)}
        self._open = {file: safe_open(file, framework="pt") for file in files}

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def tensor(self, name: str, *, exact: bool = False) -> Tensor:
        """A tensor in the compute type, or at least in float32 when it must be exact."""
        if name not in self._where:
            raise ModelError(
                f"The base model has no tensor '{name}'.",
                fix=f"Is it a {self.architecture.model_type} encoder, saved by Transformers?",
            )
        file, stored = self._where[name]
        tensor: Tensor = self._open[file].get_tensor(stored)
        dtype = torch.promote_types(self._dtype, torch.float32) if exact else self._dtype
        return tensor.to(device=self._device, dtype=dtype)

    def linear(self, path: str, *, exact: bool = False) -> Linear:
        return Linear(self.tensor(f"{path}.weight", exact=exact), self.tensor(f"{path}.bias", exact=exact))


def _names(files: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    yield file, name
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged or is not a safetensors file: {error}") from error


def _plain(name: str, architecture: Architecture) -> str:
    """Checkpoints come with and without the family's prefix, and old ones call LayerNorm's weights gamma and beta."""
    name = name.removeprefix(f"{architecture.family.prefix}.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
