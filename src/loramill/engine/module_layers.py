"""PEFT's layers in a Transformers module: which modules get them, which train whole, and what PEFT calls them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from loramill.engine.low_rank_adapter import AdapterSpec
from loramill.errors import ConfigError, Problem

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

COMMON_TARGETS = (("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("query_proj", "value_proj"), ("Wqkv",))
"""Names of query and value, for the families that PEFT's own table has not."""


@dataclass(frozen=True)
class MethodLayers:
    """PEFT's layers for one kind of adapter.

    Attributes:
        model: the module with PEFT's layers of every kind in it.
        name: what PEFT calls this kind.
        config: PEFT's settings.
        parameters: name in ``model`` -> trained parameter with its initial value.
        saved_names: name in ``model`` -> name in PEFT's files.
    """

    model: PeftModel
    name: str
    config: LoraConfig
    parameters: Mapping[str, Tensor]
    saved_names: Mapping[str, str]

    @property
    def classifier(self) -> nn.Module:
        """The module without its wrapper, which knows what inputs it accepts."""
        return self.model.get_base_model()

    @property
    def padding_id(self) -> int:
        """The token of padding; decoders find the end of a text by it."""
        return int(getattr(self.classifier.config, "pad_token_id", None) or 0)

    def saved_config(self) -> dict[str, Any]:
        """``adapter_config.json`` without the base's name; sets as sorted lists."""
        tree = dict(self.config.to_dict())  # type: ignore[no-untyped-call]
        tree["inference_mode"] = True
        return {key: sorted(value) if isinstance(value, set) else value for key, value in tree.items()}

    @contextlib.contextmanager
    def active(self, *, training: bool, base_dropout: bool) -> Iterator[None]:
        """Let the calls inside go through these layers, with dropout while training."""
        self.model.set_adapter(self.name)
        self.model.train(training and base_dropout)
        if training:
            for path, module in self.model.named_modules():
                if path.endswith(f"lora_dropout.{self.name}"):
                    module.train()
        try:
            yield
        finally:
            self.model.eval()


class PeftHost:
    """A module with PEFT's layers of every kind of adapter in it.

    Args:
        head: names of the head's weights. They are drawn anew, train, and are saved.
    """

    def __init__(self, model: nn.Module, head: Sequence[str]) -> None:
        self._model, self._head_weights = model, frozenset(head)
        self._automatic = automatic_targets(model)
        self._head = _head_modules(model, head)
        self._wrapped: PeftModel | None = None
        self._layers: dict[AdapterSpec, MethodLayers] = {}

    def layers(self, spec: AdapterSpec) -> MethodLayers:
        """The layers of one kind, with the initial values of its seed.

        Raises:
            ConfigError: no module has such a name, or PEFT refuses the settings.
        """
        if spec not in self._layers:
            self._layers[spec] = self._add(spec)
        return self._layers[spec]

    def _add(self, spec: AdapterSpec) -> MethodLayers:
        from peft import PeftModel

        config, name = self._config(spec), f"loramill{len(self._layers)}"
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(spec.seed)
            try:
                if self._wrapped is None:
                    wrapped = PeftModel(self._model, config, adapter_name=name, autocast_adapter_dtype=False)
                    self._wrapped = wrapped
                else:
                    self._wrapped.add_adapter(name, config, autocast_adapter_dtype=False)
            except ValueError as error:
                names = ", ".join(spec.modules) or "auto"
                message = f"PEFT cannot adapt {names} of this base: {str(error).split('. ')[0]}"
                raise ConfigError([Problem("lora.target_modules", list(spec.modules), message)]) from error
            self._draw_head(name)
        parameters = _own_parameters(self._wrapped, name)
        return MethodLayers(self._wrapped, name, config, parameters, _saved_names(self._wrapped, name))

    def _config(self, spec: AdapterSpec) -> LoraConfig:
        from peft import LoraConfig, TaskType

        targets = (
            spec.modules[0] if spec.modules[1:] == () and spec.modules[:1] == ("all-linear",) else list(spec.modules)
        )
        return LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=spec.rank,
            lora_alpha=spec.alpha,  # type: ignore[arg-type]  # PEFT divides it, whole or not
            use_rslora=spec.rank_stabilised,
            lora_dropout=spec.dropout,
            target_modules=targets or self._automatic,
            layers_to_transform=list(spec.layers) if spec.layers is not None else None,
            modules_to_save=list(self._head),
            use_dora=spec.dora,
        )

    def _draw_head(self, name: str) -> None:
        """New values for the head as the family draws them; those that it was loaded with depend on no seed."""
        ending = f".modules_to_save.{name}"
        for path, module in self._model.named_modules():
            own = [parameter for parameter, _ in module.named_parameters(recurse=False)]
            before, found, after = f"{path}.".partition(f"{ending}.")
            original = f"{before}.{after}"
            if found and own and all(f"{original}{parameter}" in self._head_weights for parameter in own):
                for parameter in module.parameters(recurse=False):
                    parameter._is_hf_initialized = False
                module._is_hf_initialized = False
                self._model._init_weights(module)  # type: ignore[operator]


def automatic_targets(model: nn.Module) -> list[str] | str:
    """What ``auto`` means: PEFT's choice for the family, else its query and value, else every linear layer."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    known = KNOWN.get(model.config.model_type)  # type: ignore[union-attr,arg-type]
    if known:
        return list(known)
    tails = {path.rpartition(".")[2] for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    return next((list(names) for names in COMMON_TARGETS if tails.issuperset(names)), "all-linear")


def _head_modules(model: nn.Module, head: Sequence[str]) -> list[str]:
    """The modules that hold the head's weights: below the classifier's root, or where they are within the encoder."""
    encoder = model.base_model_prefix
    found = []
    for key in head:
        path = key.rpartition(".")[0]
        parts = path.split(".")
        found.append(path.rpartition(".")[0] or path if parts[0] == encoder else parts[0])
    return list(dict.fromkeys(found))


def _own_parameters(wrapped: nn.Module, name: str) -> dict[str, Tensor]:
    """Parameters of one kind of adapter; PEFT puts its name into theirs."""
    return {path: value for path, value in wrapped.named_parameters() if f".{name}." in f"{path}."}


def _saved_names(wrapped: Any, name: str) -> dict[str, str]:
    """Asked of PEFT itself, since the names differ by method."""
    from peft import get_peft_model_state_dict

    own = {path: value.detach() for path, value in _own_parameters(wrapped, name).items()}
    places = {value.data_ptr(): path for path, value in own.items()}
    saved = get_peft_model_state_dict(wrapped, state_dict=own, adapter_name=name, save_embedding_layers=False)
    return {places[value.data_ptr()]: key for key, value in saved.items()}
