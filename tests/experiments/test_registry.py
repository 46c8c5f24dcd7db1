from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.errors import ConfigError, ConflictError, NotFoundError
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.registry import ModelRegistry
from loramill.experiments.search import Order
from loramill.experiments.store import ExperimentStore, NewExperiment


@pytest.fixture
def registry(database: Database) -> Iterator[ModelRegistry]:
    """Two finished models, a and b, and one run that is not finished."""
    with database.transaction() as session:
        add_models(session)
        yield ModelRegistry(session)


def add_models(session: Session) -> None:
    store = ExperimentStore(session)
    for experiment_id, model, accuracy in (("a", "bert", 0.8), ("b", "roberta", 0.9), ("pending", "bert", None)):
        config = ExperimentConfig.model_validate({"model": {"name": model}})
        store.create(NewExperiment.from_config(experiment_id, config, language="en"))
        if accuracy:
            store.mark_finished(experiment_id, {"eval": {"accuracy": accuracy, "loss": accuracy}})


def moves(registry: ModelRegistry, experiment_id: str) -> list[tuple[str, str | None, str | None, str, str]]:
    return [(m.kind, m.old_value, m.new_value, m.by, m.reason) for m in registry.history(experiment_id)]


def test_stages_keep_who_when_and_why(registry: ModelRegistry) -> None:
    registry.set_stage("a", "staging", by="ann", reason="looks good")
    registry.set_stage("a", "production", by="ben", reason="A/B test won")
    registry.set_stage("a", None, by="ann")
    assert moves(registry, "a") == [
        ("stage", None, "staging", "ann", "looks good"),
        ("stage", "staging", "production", "ben", "A/B test won"),
        ("stage", "production", None, "ann", ""),
    ]
    times = [move.at for move in registry.history("a")]
    assert times == sorted(times)


def test_the_newest_model_of_a_stage_is_the_one_that_came_to_it_last(registry: ModelRegistry) -> None:
    with pytest.raises(NotFoundError):
        registry.newest_in_stage("production")
    for experiment_id in ("a", "b"):
        registry.set_stage(experiment_id, "production", by="ann")
    assert registry.newest_in_stage("production") == "b"
    registry.set_stage("a", "production", by="ben", reason="roll back")
    assert registry.newest_in_stage("production") == "a"
    registry.set_stage("a", "archived", by="ben")
    assert registry.newest_in_stage("production") == "b"


def test_an_alias_points_at_one_model(registry: ModelRegistry) -> None:
    registry.set_alias("production", "a", by="ann")
    registry.set_alias("production", "b", by="ben", reason="better")
    assert registry.resolve("production") == "b"
    assert (registry.aliases("a"), registry.aliases("b")) == ([], ["production"])
    assert moves(registry, "a")[-1] == ("alias", "production", None, "ben", "better")
    registry.remove_alias("production", by="ann")
    with pytest.raises(NotFoundError):
        registry.resolve("production")
    assert moves(registry, "b")[-1] == ("alias", "production", None, "ann", "")


@pytest.mark.parametrize("alias", ["", "a b", "../x", "x" * 65, "-x", "別名"])
def test_aliases_are_plain_names(registry: ModelRegistry, alias: str) -> None:
    with pytest.raises(ConfigError, match="alias"):
        registry.set_alias(alias, "a", by="ann")


def test_only_finished_runs_are_models(registry: ModelRegistry) -> None:
    for move in (
        lambda: registry.set_stage("pending", "staging", by="x"),
        lambda: registry.set_alias("p", "pending", by="x"),
    ):
        with pytest.raises(ConflictError, match="PENDING"):
            move()
    with pytest.raises(ConfigError, match="stage"):
        registry.set_stage("a", "prod", by="x")


def test_search_by_base_language_stage_tag_and_metric(registry: ModelRegistry) -> None:
    registry.set_stage("a", "staging", by="x")

    def found(wanted: ExperimentFilter, order: Order | None = None) -> list[str]:
        return [item.id for item in registry.search(wanted, order=order).items]

    assert found(ExperimentFilter()) == ["b", "a"]
    assert found(ExperimentFilter(), Order("eval_loss", desc=False)) == ["a", "b"]
    assert found(ExperimentFilter(model_name="bert", language="en")) == ["a"]
    assert found(ExperimentFilter(stage="staging")) == ["a"]
    assert found(ExperimentFilter(stage="production")) == []
