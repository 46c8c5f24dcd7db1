"""A base that runs through its own Transformers module: the way for every family that has no fast path.

PEFT puts its layers into the module. An adapter is one flat tensor here too, and takes the place of the layers' own
values for the length of a call: trials share the module, optimizers and checkpoints see no difference, and what is
saved is PEFT's format under PEFT's names. It is slower than the engine's forward by what padding, PEFT and the module
cost, and right for whatever ``AutoModelForSequenceClassification`` loads.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loramill.engine.base import EmbeddingWeights, FrozenBase
from loramill.engine.batching import Batch, Segment
from loramill.engine.dropout import DropoutStream
from loramill.engine.linear import Linear
from loramill.engine.low_rank_adapter import ROLES, Adapter, AdapterSpec, Role, leaf_views, optimizer_ranges
from loramill.engine.module_family import lacks_bfloat16, module_architecture
from loramill.engine.module_layers import MethodLayers, PeftHost
from loramill.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PADDED_ON_THE_LEFT = ("xlnet",)
"""Families whose head reads the last place, whether it is padding or not."""
NOTHING = Linear(torch.empty(0), torch.empty(0))
NO_EMBEDDINGS = EmbeddingWeights(NOTHING.weight, NOTHING.weight, None, NOTHING, None)


@dataclass(frozen=True)
class ModuleBase(FrozenBase):
    """A frozen base without weights of the engine's own: they are within the module."""

    module: TransformersModule

    @property
    def reentrant(self) -> bool:
        """No: an adapter's values take their places in the one module for the length of a call."""
        return False

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    @property
    def device(self) -> torch.device:
        return self.module.device


def load_module_base(
    config: Mapping[str, object],
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    base_dropout: bool = False,
) -> ModuleBase:
    """A base that runs through its own module; the weights are read when the first adapter says how many labels.

    Args:
        config: the model's ``config.json``.
        folder: what ``from_pretrained`` takes; nothing in it is executed.
        dtype: bfloat16 computes under autocast, with weights in float32; a family that cannot takes float32.
        base_dropout: keep the module's own dropout while training, as the Transformers Trainer does.
    """
    if lacks_bfloat16(config):
        dtype = torch.promote_types(dtype, torch.float32)
    module = TransformersModule(folder, dtype, device, base_dropout=base_dropout)
    return ModuleBase(module_architecture(config), NO_EMBEDDINGS, (), {}, module)


class TransformersModule:
    """The module of a base, once for each number of labels, and PEFT's layers in it for each kind of adapter."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device, *, base_dropout: bool) -> None:
        self.folder, self.dtype, self.device = folder, dtype, device
        self.base_dropout = base_dropout
        self._hosts: dict[int, PeftHost] = {}

    def layers(self, spec: AdapterSpec) -> MethodLayers:
        """PEFT's layers for adapters of this kind, made on first use with the initial values of the spec's seed.

        Raises:
            ConfigError: the base has no such modules, or PEFT refuses the settings.
            ModelError: Transformers has no classifier for this model, or cannot load it; or its weights have other
                sizes than its config says.
        """
        if spec.labels not in self._hosts:
            self._hosts[spec.labels] = PeftHost(*self._load(spec.labels))
        return self._hosts[spec.labels].layers(spec)

    def _load(self, labels: int) -> tuple[nn.Module, list[str]]:
        """The module in float32 or finer, and the names of the head's weights."""
        from transformers import AutoModelForSequenceClassification

        precise = torch.promote_types(self.dtype, torch.float32)
        try:
            with quiet_transformers():
                model, info = AutoModelForSequenceClassification.from_pretrained(
                    self.folder,
                    num_labels=labels,
                    dtype=precise,
                    trust_remote_code=False,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"Transformers cannot load {self.folder} as a text classifier: {first}",
                fix="Use a text encoder, such as distilbert-base-uncased, or the package of config/quickstart.yaml.",
            ) from error
        _check_encoder(model, info, self.folder)
        adjust_decoder(model.config)
        return model.to(self.device).requires_grad_(False).eval(), _head_of(model, info)

    def classify(
        self, adapters: Sequence[Adapter], batch: Batch, dropout: Mapping[int, DropoutStream], model_type: str
    ) -> list[Tensor]:
        """Logits of every segment, each ``[rows, labels]`` in float32 (float64 for a float64 base)."""
        logits = []
        for segment in batch.segments:
            adapter = adapters[segment.adapter]
            if not isinstance(adapter, ModuleAdapter):
                raise TypeError("the adapters of a module are ModuleAdapters")
            layers = self.layers(adapter.spec)
            inputs = padded_inputs(batch, segment, padding=layers.padding_id, left=model_type in PADDED_ON_THE_LEFT)
            logits.append(self._call(layers, adapter, inputs, dropout.get(segment.adapter)))
        return logits

    def _call(
        self, layers: MethodLayers, adapter: ModuleAdapter, inputs: dict[str, Tensor], stream: DropoutStream | None
    ) -> Tensor:
        accepted = inspect.signature(layers.classifier.forward).parameters
        given = {name: value for name, value in inputs.items() if name in accepted}
        with (
            layers.active(training=stream is not None, base_dropout=self.base_dropout),
            self._random(stream),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16),
        ):
            output = torch.func.functional_call(layers.model, dict(adapter.tensors), kwargs=given)
        logits: Tensor = output.logits
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @contextlib.contextmanager
    def _random(self, stream: DropoutStream | None) -> Iterator[None]:
        """The module draws its dropout from the global generator; for a call it is seeded by the adapter's stream."""
        if stream is None:
            yield
            return
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(stream.next_seed())
            yield


class ModuleAdapter(Adapter):
    """An adapter of a module.

    Attributes:
        tensors: parameter of the module -> view of the flat values.
        saved_names: the same parameters under the names of PEFT's files.
    """

    def __init__(self, base: ModuleBase, spec: AdapterSpec, *, dtype: torch.dtype = torch.float32) -> None:
        layers = base.module.layers(spec)
        self.spec, self.pairs, self.head = spec, {}, {}
        parameters = dict(sorted(layers.parameters.items(), key=lambda item: ROLES.index(_role(item[0]))))
        self.values = torch.cat([parameter.detach().flatten().to(dtype) for parameter in parameters.values()])
        self.grads = torch.zeros_like(self.values)
        self.tensors = leaf_views(self.values, self.grads, {name: found.shape for name, found in parameters.items()})
        self.saved_names = layers.saved_names
        self.ranges = optimizer_ranges([(_role(name), found.numel()) for name, found in parameters.items()], spec)

    @property
    def parameters(self) -> list[Tensor]:
        return list(self.tensors.values())

    def saved_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Views of every saved tensor, by PEFT's names."""
        return ((saved, self.tensors[name]) for name, saved in self.saved_names.items())


def adjust_decoder(config: PretrainedConfig) -> None:
    """A decoder as a classifier: it looks for the padding to find the last token, and needs no keys of past tokens.

    Some, as GPT-2, have no token for padding.
    """
    if config.pad_token_id is None:
        config.pad_token_id = config.eos_token_id
    config.use_cache = False


def _check_encoder(model: nn.Module, info: Mapping[str, Any], folder: Path) -> None:
    """Only a head may have another size than its checkpoint; Transformers would draw an encoder's weights anew."""
    for name, saved, wanted in sorted(info["mismatched_keys"]):
        if name.startswith(f"{model.base_model_prefix}."):
            raise ModelError(
                f"{folder}: {name} has the shape {list(saved)}; its config.json says {list(wanted)}.",
                fix="Use the config.json and the weights of the same model.",
            )


def _head_of(model: nn.Module, info: Mapping[str, Any]) -> list[str]:
    """The weights that the checkpoint lacks or has for other labels; of a whole classifier, all outside the encoder."""
    mismatched = {name for name, _, _ in info["mismatched_keys"]}
    if info["missing_keys"]:
        return sorted(mismatched.union(info["missing_keys"]))
    encoder = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_parameters()]
    outside = [name for name in names if not name.startswith(encoder)]
    return sorted(outside if len(outside) < len(names) else mismatched)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """That the head is new is no news here, and a bar for one second of loading none either."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def padded_inputs(batch: Batch, segment: Segment, *, padding: int, left: bool) -> dict[str, Tensor]:
    """One segment's rows as a Transformers model takes them, ``[rows, width]``.

    Token types are left out where all are 0, which is what models without them, and GPT-2, need.
    """
    starts = batch.first_tokens[segment.first_row : segment.last_row] - segment.first_token
    ends = torch.cat([starts[1:], starts.new_tensor([segment.last_token - segment.first_token])])
    lengths = ends - starts
    width = int(lengths.max())
    places = torch.arange(width, device=starts.device)
    offsets = (width - lengths if left else torch.zeros_like(lengths))[:, None]
    mask = (places >= offsets) & (places < offsets + lengths[:, None])
    inputs = {"attention_mask": mask.long()}
    for name, flat, filler in (("input_ids", batch.token_ids, padding), ("token_type_ids", batch.type_ids, 0)):
        values = flat[segment.first_token : segment.last_token]
        if name == "input_ids" or bool(values.any()):
            inputs[name] = torch.full_like(mask, filler, dtype=torch.long).masked_scatter_(mask, values)
    return inputs


def _role(name: str) -> Role:
    """The rule of the optimizer for a parameter: weights of the head go with A, and DoRA's magnitudes with biases."""
    if ".lora_B." in name:
        return "lora_b"
    return "head_bias" if name.endswith(".bias") or "magnitude" in name else "lora_a"
