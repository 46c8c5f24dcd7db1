"""What differs between encoder families: where their weights are, and how their heads are built.

BERT, RoBERTa, DistilBERT and ALBERT (and what is built like them: MiniLM, ELECTRA-style checkpoints with a BERT
config, XLM-R, CamemBERT) share one architecture: embeddings, then layers of self-attention and feed-forward, each
followed by a residual connection and LayerNorm. A ``Family`` is a table of names; the forward pass is written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from loramill.errors import ConfigError, ModelError, Problem

Site = Literal["query", "key", "value", "attention_output", "up", "down"]
"""The linear modules of a layer that can carry an adapter."""

SITES: tuple[Site, ...] = ("query", "key", "value", "attention_output", "up", "down")
Activation = Literal["gelu", "gelu_new", "relu", "tanh", "none"]


@dataclass(frozen=True)
class HeadLayer:
    """One linear layer between the pooled state and the logits.

    Attributes:
        path: module path in the Transformers model, such as ``bert.pooler.dense``.
        activation: applied to its output.
        pretrained: the base checkpoint may carry it; it is frozen when it does.
        saved_as: what PEFT's ``modules_to_save`` calls it.
    """

    path: str
    activation: Activation
    pretrained: bool
    saved_as: str


@dataclass(frozen=True)
class Family:
    """Names of one family's weights, relative to the checkpoint without its prefix.

    ``layer`` holds ``{i}`` for the layer's number, or no ``{i}`` where all layers share their weights.
    """

    prefix: str
    layer: str
    sites: Mapping[Site, str]
    attention_norm: str
    output_norm: str
    word_embeddings: str
    position_embeddings: str
    type_embeddings: str | None
    embeddings_norm: str
    embeddings_projection: str | None
    head: tuple[HeadLayer, ...]
    automatic_targets: tuple[Site, ...] = ("query", "value")

    def module_name(self, site: Site) -> str:
        """The last part of a site's path, as ``target_modules`` names it: ``query``, ``q_lin``."""
        return self.sites[site].rpartition(".")[2]


@dataclass(frozen=True)
class Architecture:
    """A family with the numbers of one checkpoint."""

    family: Family
    model_type: str
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    activation: Activation
    norm_eps: float
    max_positions: int
    position_offset: int
    initializer_range: float

    def layer_path(self, layer: int) -> str:
        return self.family.layer.format(i=layer)

    def site_path(self, layer: int, site: Site) -> str:
        """Module path of a site, as PEFT writes it: ``bert.encoder.layer.0.attention.self.query``."""
        return f"{self.family.prefix}.{self.layer_path(layer)}.{self.family.sites[site]}"

    def site_shape(self, site: Site) -> tuple[int, int]:
        """(out, in) features of a site's weight."""
        if site == "up":
            return self.intermediate_size, self.hidden_size
        if site == "down":
            return self.hidden_size, self.intermediate_size
        return self.hidden_size, self.hidden_size


BERT = Family(
    prefix="bert",
    layer="encoder.layer.{i}",
    sites={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attention_output": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    attention_norm="attention.output.LayerNorm",
    output_norm="output.LayerNorm",
    word_embeddings="embeddings.word_embeddings",
    position_embeddings="embeddings.position_embeddings",
    type_embeddings="embeddings.token_type_embeddings",
    embeddings_norm="embeddings.LayerNorm",
    embeddings_projection=None,
    head=(
        HeadLayer("bert.pooler.dense", "tanh", pretrained=True, saved_as="pooler"),
        HeadLayer("classifier", "none", pretrained=False, saved_as="classifier"),
    ),
)

ROBERTA = replace(
    BERT,
    prefix="roberta",
    head=(
        HeadLayer("classifier.dense", "tanh", pretrained=False, saved_as="classifier"),
        HeadLayer("classifier.out_proj", "none", pretrained=False, saved_as="classifier"),
    ),
)

DISTILBERT = Family(
    prefix="distilbert",
    layer="transformer.layer.{i}",
    sites={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
    },
    attention_norm="sa_layer_norm",
    output_norm="output_layer_norm",
    word_embeddings="embeddings.word_embeddings",
    position_embeddings="embeddings.position_embeddings",
    type_embeddings=None,
    embeddings_norm="embeddings.LayerNorm",
    embeddings_projection=None,
    head=(
        HeadLayer("pre_classifier", "relu", pretrained=False, saved_as="pre_classifier"),
        HeadLayer("classifier", "none", pretrained=False, saved_as="classifier"),
    ),
)

ALBERT = Family(
    prefix="albert",
    layer="encoder.albert_layer_groups.0.albert_layers.0",
    sites={
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "attention_output": "attention.dense",
        "up": "ffn",
        "down": "ffn_output",
    },
    attention_norm="attention.LayerNorm",
    output_norm="full_layer_layer_norm",
    word_embeddings="embeddings.word_embeddings",
    position_embeddings="embeddings.position_embeddings",
    type_embeddings="embeddings.token_type_embeddings",
    embeddings_norm="embeddings.LayerNorm",
    embeddings_projection="encoder.embedding_hidden_mapping_in",
    head=(
        HeadLayer("albert.pooler", "tanh", pretrained=True, saved_as="pooler"),
        HeadLayer("classifier", "none", pretrained=False, saved_as="classifier"),
    ),
)

FAMILIES: Mapping[str, Family] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "distilbert": DISTILBERT,
    "albert": ALBERT,
}
"""``model_type`` of a Transformers config -> family."""


def read_architecture(config: Mapping[str, object]) -> Architecture:
    """The architecture that a Transformers ``config.json`` describes.

    Raises:
        ModelError: for a family or a variant that the engine does not know.
    """
    model_type = str(config.get("model_type", "unknown"))
    family = FAMILIES.get(model_type)
    if family is None:
        raise ModelError(
            f"No fast path for the model family '{model_type}'.", fix=f"Families: {', '.join(sorted(FAMILIES))}."
        )
    _refuse_variants(config, model_type)
    if model_type == "distilbert":
        return _architecture(config, family, "dim", "n_layers", "n_heads", "hidden_dim", "activation")
    return _architecture(
        config, family, "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"
    )


def _architecture(
    config: Mapping[str, object], family: Family, hidden: str, layers: str, heads: str, inner: str, activation: str
) -> Architecture:
    offset = int(_number(config, "pad_token_id", 1)) + 1 if family is ROBERTA else 0
    return Architecture(
        family=family,
        model_type=str(config["model_type"]),
        hidden_size=int(_number(config, hidden)),
        layers=int(_number(config, layers)),
        heads=int(_number(config, heads)),
        intermediate_size=int(_number(config, inner)),
        activation=_activation(str(config.get(activation, "gelu"))),
        norm_eps=_number(config, "layer_norm_eps", 1e-12),
        max_positions=int(_number(config, "max_position_embeddings", 512)) - offset,
        position_offset=offset,
        initializer_range=_number(config, "initializer_range", 0.02),
    )


def _number(config: Mapping[str, object], key: str, default: float | None = None) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ModelError(f"The model's config.json says {key}: {value!r}, which is not a number.")
    return value


def _activation(name: str) -> Activation:
    if name in ("gelu", "relu"):
        return "gelu" if name == "gelu" else "relu"
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return "gelu_new"
    raise ModelError(f"The engine does not know the activation '{name}'.", fix="Known: gelu, gelu_new, relu.")


def _refuse_variants(config: Mapping[str, object], model_type: str) -> None:
    """Variants that would need another forward pass: better a clear refusal than wrong logits."""
    position_type = config.get("position_embedding_type", "absolute")
    if position_type not in ("absolute", None):
        raise ModelError(f"The engine does not know position_embedding_type '{position_type}'.")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise ModelError("The model is configured as a decoder; text classification needs an encoder.")
    groups = (config.get("num_hidden_groups", 1), config.get("inner_group_num", 1))
    if model_type == "albert" and groups != (1, 1):
        raise ModelError("The engine knows ALBERT with one group of shared layers only.")


def check_layers(architecture: Architecture, layers: tuple[int, ...] | None) -> None:
    """
    Raises:
        ConfigError: the encoder has no such layer, or its layers share their weights.
    """
    if layers is None:
        return
    message = None
    if "{i}" not in architecture.family.layer:
        message = f"the layers of {architecture.model_type} share their weights, so all are adapted or none"
    elif layers[-1] >= architecture.layers:
        message = f"the base has the layers 0 to {architecture.layers - 1}"
    if message:
        raise ConfigError([Problem("lora.layers_to_transform", list(layers), message)])


def choose_sites(architecture: Architecture, target_modules: str | list[str]) -> tuple[Site, ...]:
    """The sites that ``lora.target_modules`` names, in the order of ``SITES``.

    A name matches as in PEFT: the last part of a module's path (``query``), or a longer tail (``output.dense``) within
    its layer, since all layers are adapted alike.

    Raises:
        ConfigError: for every name that matches no module, with those that exist.
    """
    family = architecture.family
    if target_modules == "auto":
        return family.automatic_targets
    chosen: set[Site] = set()
    problems = []
    for name in target_modules:
        matches = [site for site in SITES if f".{family.sites[site]}".endswith(f".{name}")]
        chosen.update(matches)
        if not matches:
            known = ", ".join(sorted({family.module_name(site) for site in SITES}))
            message = f"the {architecture.model_type} base has no module '{name}'; it has {known}, or say auto"
            problems.append(Problem("lora.target_modules", name, message))
    if problems:
        raise ConfigError(problems)
    return tuple(site for site in SITES if site in chosen)
