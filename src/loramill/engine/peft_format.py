"""PEFT's file format: an adapter as ``adapter_model.safetensors`` and ``adapter_config.json``, both ways.

``PeftModel.from_pretrained(base, folder)`` loads what is written here, head included: the head is in
``modules_to_save``, which is what keeps it from being lost on reload (huggingface/peft#876, #2027).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from loramill.engine.adapters import new_adapter
from loramill.engine.base import FrozenBase
from loramill.engine.families import SITES, Architecture, Site, choose_sites
from loramill.engine.low_rank_adapter import Adapter, AdapterSpec, Group, LowRankPair
from loramill.engine.module_base import ModuleAdapter, ModuleBase
from loramill.errors import AdapterFormatError, ConfigError
from loramill.files import write_atomic, write_json

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."
OTHER_FORWARDS = (
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "lora_bias",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "target_parameters",
    "trainable_token_indices",
)
"""Settings of PEFT under which the same tensors mean other logits than plain LoRA's."""
INITS_THAT_KEEP_THE_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""The other values of ``init_lora_weights`` (PiSSA, OLoRA ...) change the base when PEFT loads the adapter."""


def save_adapter(folder: Path, base: FrozenBase, adapter: Adapter, *, base_name: str) -> None:
    """Write both files into an existing folder.

    Args:
        base_name: hub id or folder of the base, for whoever loads the adapter.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in saved_tensors(base, adapter)}
    write_atomic(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, peft_config(base, adapter.spec, base_name=base_name))


def load_adapter(
    folder: Path, base: FrozenBase, *, labels: int | None = None, dtype: torch.dtype = torch.float32
) -> Adapter:
    """Read an adapter for this base from PEFT's two files.

    Args:
        labels: how many it has; the files say it on the fast path, and do not where the base runs through its module.

    Raises:
        AdapterFormatError: files missing, damaged, for another base, of another kind than LoRA, or not finite.
    """
    tensors = _read_tensors(folder)
    spec = _read_spec(folder, base, tensors, labels)
    adapter = new_adapter(base, spec, dtype=dtype)
    with torch.no_grad():
        for name, view in named_tensors(base, adapter):
            stored = tensors.pop(name, None)
            if stored is None or stored.shape != view.shape:
                found = "is missing" if stored is None else f"has the shape {list(stored.shape)}"
                raise AdapterFormatError(
                    f"{folder}: the tensor '{name}' {found}; this base needs {list(view.shape)}.",
                    fix="Was the adapter trained on another base model?",
                )
            if not torch.isfinite(stored).all():
                raise AdapterFormatError(f"{folder}: the tensor '{name}' has values that are not finite.")
            view.copy_(stored)
    if tensors:
        raise AdapterFormatError(
            f"{folder}: tensors that this base has no place for: {', '.join(sorted(tensors)[:5])}."
        )
    return adapter


def saved_tensors(base: FrozenBase, adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    """Every saved tensor of an adapter, by PEFT's names; a PiSSA adapter is saved as a plain one of twice the rank."""
    return named_tensors(base, adapter, {place: LowRankPair(*pair.whole()) for place, pair in adapter.pairs.items()})


def named_tensors(
    base: FrozenBase, adapter: Adapter, pairs: Mapping[tuple[str, Group], LowRankPair] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Views of every tensor of an adapter, by PEFT's names.

    Args:
        pairs: in place of the adapter's own.
    """
    if isinstance(adapter, ModuleAdapter):
        yield from adapter.saved_tensors()
        return
    architecture = base.architecture
    layer_of_path = {architecture.layer_path(layer): layer for layer in range(architecture.layers)}
    for (path, group), pair in (pairs or adapter.pairs).items():
        rank = pair.lora_b.shape[2]
        for position, site in enumerate(adapter.spec.group_sites(group)):
            module = f"{PREFIX}{architecture.site_path(layer_of_path[path], site)}"
            yield f"{module}.lora_A.weight", pair.lora_a[position * rank : (position + 1) * rank]
            yield f"{module}.lora_B.weight", pair.lora_b[position]
    for path, layer in adapter.head.items():
        yield f"{PREFIX}{path}.weight", layer.weight
        yield f"{PREFIX}{path}.bias", layer.bias


def peft_config(base: FrozenBase, spec: AdapterSpec, *, base_name: str) -> dict[str, object]:
    """The content of ``adapter_config.json``."""
    if isinstance(base, ModuleBase):
        return {**base.module.layers(spec).saved_config(), "base_model_name_or_path": base_name}
    doubled = 2 if spec.init == "pissa" else 1
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": doubled * spec.rank,
        "lora_alpha": (doubled**0.5 if spec.rank_stabilised else doubled) * spec.alpha,
        "use_rslora": spec.rank_stabilised,
        "lora_dropout": spec.dropout,
        "bias": "none",
        "target_modules": _target_modules(base.architecture, spec),
        "modules_to_save": list(dict.fromkeys(layer.saved_as for layer in base.trained_head())),
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _target_modules(architecture: Architecture, spec: AdapterSpec) -> list[str]:
    """Short module names where they mean just these sites to PEFT, which matches tails of paths; else full paths."""
    family, sites = architecture.family, spec.sites
    names = {family.module_name(site) for site in sites}
    others = [family.sites[site] for site in SITES if site not in sites] + [layer.path for layer in family.head]
    if spec.layers is None and not any(other.rpartition(".")[2] in names for other in others):
        return sorted(names)
    layers = range(architecture.layers) if spec.layers is None else spec.layers
    return sorted({architecture.site_path(layer, site) for layer in layers for site in sites})


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError as error:
        raise AdapterFormatError(f"{folder} has no {WEIGHTS_FILE}.", fix="Is it a finished experiment?") from error
    except (SafetensorError, OSError) as error:
        raise AdapterFormatError(f"{folder / WEIGHTS_FILE} is damaged or is not a safetensors file: {error}") from error


def _read_spec(folder: Path, base: FrozenBase, tensors: Mapping[str, Tensor], labels: int | None) -> AdapterSpec:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        if isinstance(base, ModuleBase):
            return _read_module_spec(folder, config, labels)
        _refuse_other_kinds(folder, config)
        targets = config["target_modules"]
        return AdapterSpec(
            rank=int(config["r"]),
            alpha=float(config["lora_alpha"]),
            rank_stabilised=bool(config.get("use_rslora", False)),
            sites=_read_sites(base.architecture, targets),
            dropout=float(config.get("lora_dropout", 0.0)),
            labels=tensors[f"{PREFIX}{base.architecture.family.head[-1].path}.weight"].shape[0],
            seed=0,
            layers=_read_layers(base.architecture, config),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ConfigError) as error:
        raise AdapterFormatError(
            f"{folder / CONFIG_FILE} does not describe an adapter for this base: {error}"
        ) from error


def _refuse_other_kinds(folder: Path, config: Mapping[str, object]) -> None:
    other = [f"peft_type={config['peft_type']!r}"] if config["peft_type"] != "LORA" else []
    other += [f"{key}={config[key]!r}" for key in OTHER_FORWARDS if config.get(key)]
    if config.get("init_lora_weights", True) not in INITS_THAT_KEEP_THE_BASE:
        other.append(f"init_lora_weights={config['init_lora_weights']!r}")
    if other:
        raise AdapterFormatError(
            f"{folder}: only plain LoRA adapters run on the engine; this one has {', '.join(other)}.",
            fix="Merge it into its base with PEFT's merge_and_unload, or train a plain one.",
        )


def _read_module_spec(folder: Path, config: Mapping[str, Any], labels: int | None) -> AdapterSpec:
    """An adapter of a module: LoRA, or DoRA."""
    if config["peft_type"] != "LORA":
        raise AdapterFormatError(f"{folder}: peft_type={config['peft_type']!r} is no kind of LoRA.")
    if labels is None:
        raise AdapterFormatError(f"{folder}: nothing says how many labels the adapter has.")
    layers = config.get("layers_to_transform")
    targets = config["target_modules"]
    return AdapterSpec(
        rank=int(config["r"]),
        alpha=float(config["lora_alpha"]),
        rank_stabilised=bool(config.get("use_rslora", False)),
        sites=(),
        dropout=float(config.get("lora_dropout", 0.0)),
        labels=labels,
        seed=0,
        layers=tuple(layers) if layers is not None else None,
        modules=(targets,) if isinstance(targets, str) else tuple(targets),
        dora=bool(config.get("use_dora", False)),
    )


def _read_layers(architecture: Architecture, config: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The adapted layers: named by PEFT's ``layers_to_transform``, or by full paths as we write them."""
    named = config.get("layers_to_transform")
    if named is not None:
        return tuple(sorted([named] if isinstance(named, int) else named))
    targets = config["target_modules"]
    found = [
        layer
        for layer in range(architecture.layers)
        if any(architecture.site_path(layer, site) in targets for site in SITES)
    ]
    return tuple(found) if 0 < len(found) < architecture.layers else None


def _read_sites(architecture: Architecture, targets: str | list[str]) -> tuple[Site, ...]:
    names = [targets] if isinstance(targets, str) else targets
    paths = {architecture.site_path(layer, site): site for layer in range(architecture.layers) for site in SITES}
    if all(name in paths for name in names):
        return tuple(site for site in SITES if site in {paths[name] for name in names})
    return choose_sites(architecture, names)
