"""Which modules get an adapter, and that PEFT understands the names in which this is saved."""

from __future__ import annotations

import itertools
from pathlib import Path

import peft
import pytest
from transformers import AutoModelForSequenceClassification

from loramill.engine.families import FAMILIES, SITES, Architecture, Site, choose_sites, read_architecture
from loramill.engine.peft_format import peft_config
from loramill.errors import ConfigError, ModelError
from small_models import CONFIGS, random_adapter, small_base

SUBSETS = [sites for size in (1, 2, len(SITES)) for sites in itertools.combinations(SITES, size)]


def architecture_of(family: str) -> Architecture:
    return read_architecture(CONFIGS[family].to_dict())


@pytest.mark.parametrize("family", CONFIGS)
def test_auto_means_query_and_value(family: str) -> None:
    assert choose_sites(architecture_of(family), "auto") == ("query", "value")


@pytest.mark.parametrize(
    ("family", "names", "sites"),
    [
        ("bert", ["query", "value"], ("query", "value")),
        ("bert", ["value", "query"], ("query", "value")),
        ("bert", ["self.query"], ("query",)),
        ("bert", ["dense"], ("attention_output", "up", "down")),
        ("bert", ["output.dense"], ("attention_output", "down")),
        ("bert", ["attention.output.dense", "intermediate.dense"], ("attention_output", "up")),
        ("roberta", ["key"], ("key",)),
        ("distilbert", ["q_lin", "v_lin"], ("query", "value")),
        ("distilbert", ["out_lin", "lin1", "ffn.lin2"], ("attention_output", "up", "down")),
        ("albert", ["query", "ffn"], ("query", "up")),
        ("albert", ["ffn_output", "attention.dense"], ("attention_output", "down")),
    ],
)
def test_names_match_the_last_part_of_a_path_or_a_longer_tail(family: str, names: list[str], sites: tuple) -> None:
    assert choose_sites(architecture_of(family), names) == sites


def test_every_unknown_name_is_a_problem_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        choose_sites(architecture_of("distilbert"), ["query", "q_lin", "lin", "v_lin2"])
    problems = caught.value.problems
    assert [problem.value for problem in problems] == ["query", "lin", "v_lin2"]
    assert all(problem.key == "lora.target_modules" for problem in problems)
    assert all(name in problems[0].message for name in ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2", "auto"))


@pytest.mark.parametrize("name", ["0.attention.self.query", "encoder.layer.0.attention.self.query", "1", "layer"])
def test_a_name_of_one_layer_only_is_refused_since_all_layers_are_adapted(name: str) -> None:
    with pytest.raises(ConfigError):
        choose_sites(architecture_of("bert"), [name])


def test_peft_adapts_exactly_the_modules_that_the_saved_names_mean(small_model: Path) -> None:
    base = small_base(small_model)
    for sites in SUBSETS:
        saved = peft_config(base, random_adapter(base, sites=sites).spec, base_name="")
        plain = AutoModelForSequenceClassification.from_config(CONFIGS[base.architecture.model_type])
        model = peft.get_peft_model(plain, peft.LoraConfig(**{**saved, "base_model_name_or_path": None}))
        assert set(model.targeted_module_names) == adapted_paths(base.architecture, sites), sites


def adapted_paths(architecture: Architecture, sites: tuple[Site, ...]) -> set[str]:
    return {architecture.site_path(layer, site) for layer in range(architecture.layers) for site in sites}


def test_an_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match="gpt2") as caught:
        read_architecture({"model_type": "gpt2"})
    assert all(name in caught.value.fix for name in FAMILIES)


@pytest.mark.parametrize(
    "change",
    [
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"hidden_act": "silu"},
        {"hidden_size": "large"},
        {"hidden_size": None},
        {"num_hidden_layers": True},
    ],
)
def test_variants_that_the_forward_does_not_compute_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        read_architecture({**CONFIGS["bert"].to_dict(), **change})


def test_albert_with_groups_of_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="one group"):
        read_architecture({**CONFIGS["albert"].to_dict(), "num_hidden_groups": 2})
