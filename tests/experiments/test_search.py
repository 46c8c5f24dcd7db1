from __future__ import annotations

import base64
import json
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from loramill.database import Database
from loramill.errors import ConfigError
from loramill.experiments import search
from loramill.experiments.filters import ExperimentFilter
from loramill.experiments.search import Order
from loramill.experiments.store import ExperimentStore, NewExperiment

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("Nightly base", "sweep r8", "Sweep R16", "50%_off", "情感分析")


@pytest.fixture
def rows(database: Database) -> list[dict[str, Any]]:
    """Sixty experiments with ties, gaps and missing values, as plain dictionaries."""
    draw = random.Random(7)
    made = []
    with database.transaction() as session:
        store = ExperimentStore(session)
        for number in range(60):
            row = {
                "id": f"e{number}",
                "name": draw.choice(NAMES),
                "model_name": draw.choice(("bert", "roberta")),
                "dataset_name": draw.choice(("sst2", "imdb")),
                "owner": draw.choice(("u1", "u10", None)),
                "created_at": START + timedelta(hours=draw.randrange(20)),
                "tags": draw.sample(("good", "bad", "ugly"), draw.randrange(3)),
                "archived": draw.random() < 0.2,
                "finished": draw.random() < 0.7,
                "number": number,
            }
            row["metrics"] = random_metrics(draw) if row["finished"] else {}
            known = {key: row[key] for key in ("id", "name", "model_name", "dataset_name", "owner", "created_at")}
            store.create(NewExperiment(config={}, task="SEQ_CLS", **known))
            store.mark_started(row["id"])
            if row["finished"]:
                sections = {"train": {}, "eval": {}}
                for name, value in row["metrics"].items():
                    section, _, metric = name.partition("_")
                    sections[section][metric] = value
                store.mark_finished(row["id"], sections)
            store.add_tags(row["id"], row["tags"])
            store.set_archived(row["id"], row["archived"])
            made.append(row)
    return made


def random_metrics(draw: random.Random) -> dict[str, float]:
    metrics = {"eval_accuracy": draw.randrange(5) / 4, "train_runtime": float(draw.randrange(1, 9))}
    if draw.random() < 0.6:
        metrics["eval_f1_macro"] = draw.randrange(4) / 3
    return metrics


FILTERS = {
    "nothing": (ExperimentFilter(), lambda r: not r["archived"]),
    "all": (ExperimentFilter(archived=None), lambda r: True),
    "archived": (ExperimentFilter(archived=True), lambda r: r["archived"]),
    "name": (ExperimentFilter(name="R SWEEP"), lambda r: "sweep r" in r["name"].lower() and not r["archived"]),
    "percent": (ExperimentFilter(name="%_o"), lambda r: r["name"] == "50%_off" and not r["archived"]),
    "chinese": (ExperimentFilter(name="情感"), lambda r: r["name"] == "情感分析" and not r["archived"]),
    "accuracy": (
        ExperimentFilter(min_accuracy=0.5),
        lambda r: r["metrics"].get("eval_accuracy", -1) >= 0.5 and not r["archived"],
    ),
    "runtime": (
        ExperimentFilter(max_runtime=4),
        lambda r: r["metrics"].get("train_runtime", math.inf) <= 4 and not r["archived"],
    ),
    "dates": (
        ExperimentFilter(start_date=START + timedelta(hours=5), end_date=START + timedelta(hours=10)),
        lambda r: timedelta(hours=5) <= r["created_at"] - START <= timedelta(hours=10) and not r["archived"],
    ),
    "model": (ExperimentFilter(model_name="bert"), lambda r: r["model_name"] == "bert" and not r["archived"]),
    "data": (ExperimentFilter(dataset_name="imdb"), lambda r: r["dataset_name"] == "imdb" and not r["archived"]),
    "owner": (ExperimentFilter(owner="u1"), lambda r: r["owner"] == "u1" and not r["archived"]),
    "status": (ExperimentFilter(status="SUCCESS"), lambda r: r["finished"] and not r["archived"]),
    "tag": (ExperimentFilter(tag="good"), lambda r: "good" in r["tags"] and not r["archived"]),
    "many": (
        ExperimentFilter(model_name="bert", tag="bad", min_accuracy=0.25, archived=None),
        lambda r: r["model_name"] == "bert" and "bad" in r["tags"] and r["metrics"].get("eval_accuracy", -1) >= 0.25,
    ),
}
ORDERS = [
    Order(key, desc) for key in ("created_at", "name", "eval_accuracy", "eval_f1_macro") for desc in (False, True)
]


def sort_value(row: dict[str, Any], key: str) -> Any:
    if key == "created_at":
        return row[key]
    return row["name"].casefold() if key == "name" else row["metrics"].get(key)


def expected_ids(rows: list[dict[str, Any]], order: Order, passes: Any) -> list[str]:
    """The list by definition: rows with a value in order, then those without."""
    kept = [row for row in rows if passes(row)]
    having = [row for row in kept if sort_value(row, order.key) is not None]
    lacking = [row for row in kept if sort_value(row, order.key) is None]
    having.sort(key=lambda row: (sort_value(row, order.key), row["number"]), reverse=order.desc)
    lacking.sort(key=lambda row: row["number"], reverse=order.desc)
    return [row["id"] for row in having + lacking]


def all_pages(store: ExperimentStore, wanted: ExperimentFilter, order: Order, limit: int) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = store.list_page(wanted, order=order, limit=limit, cursor=cursor)
        ids += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids
        assert len(page.items) == limit


@pytest.mark.parametrize("plan", ["narrow", "broad"])
def test_both_plans_give_the_list_by_definition(
    database: Database, rows: list[dict[str, Any]], plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_is_narrow", lambda session, wanted: plan == "narrow")
    with database.reading() as session:
        store = ExperimentStore(session)
        for name, (wanted, passes) in FILTERS.items():
            for order in ORDERS:
                assert all_pages(store, wanted, order, 11) == expected_ids(rows, order, passes), (name, order)


def test_a_sample_tells_narrow_from_broad(
    database: Database, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SMALL_RECORD", 10)
    monkeypatch.setattr(search, "SAMPLE", 50)
    with database.reading() as session:
        assert search._is_narrow(session, ExperimentFilter(name="no such name"))
        assert not search._is_narrow(session, ExperimentFilter(status="SUCCESS"))
        assert not search._is_narrow(session, ExperimentFilter())


def test_rows_that_arrive_between_pages_shift_nothing(database: Database, rows: list[dict[str, Any]]) -> None:
    order = Order("created_at", desc=True)
    before = expected_ids(rows, order, FILTERS["nothing"][1])
    with database.transaction() as session:
        store = ExperimentStore(session)
        first = store.list_page(order=order, limit=10)
        late = {"name": "late", "config": {}, "model_name": "m", "dataset_name": "d", "task": "t"}
        store.create(NewExperiment(id="late", created_at=START + timedelta(days=9), **late))
        second = store.list_page(order=order, limit=10, cursor=first.next_cursor)
    assert [item.id for item in first.items + second.items] == before[:20]


def test_a_page_costs_few_statements(database: Database, rows: list[dict[str, Any]]) -> None:
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    with database.reading() as session:
        ExperimentStore(session).list_page(ExperimentFilter(status="SUCCESS"), order=Order("eval_f1_macro"), limit=20)
    assert len([statement for statement in statements if statement.startswith("SELECT")]) <= 5


@pytest.mark.parametrize("cursor", ["x", "!!!!", "WyJuYW1lIix0cnVlLDEsMV0", "bnVsbA", "A" * 5000])
def test_cursors_of_another_order_are_refused(database: Database, cursor: str) -> None:
    with database.reading() as session, pytest.raises(ConfigError, match="cursor"):
        ExperimentStore(session).list_page(cursor=cursor)


@pytest.mark.parametrize("hostile", ["nul\0", "half \ud800", "\udfff"])
def test_what_no_database_can_hold_is_refused(hostile: str) -> None:
    for name in ("name", "owner", "tag", "model_name", "status"):
        with pytest.raises(ConfigError, match=name):
            ExperimentFilter(**{name: hostile})
    with pytest.raises(ConfigError, match="sort_by"):
        Order(hostile)
    with pytest.raises(ConfigError, match="time zone"):
        ExperimentFilter(start_date=datetime(2026, 1, 1))


@pytest.mark.parametrize("number", [-1, 2**63, 1e999, "1", None])
def test_forged_cursors_are_refused(database: Database, number: object) -> None:
    text = json.dumps(["eval_accuracy", True, False, 0.5, number])
    cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    with database.reading() as session, pytest.raises(ConfigError, match="cursor"):
        ExperimentStore(session).list_page(order=Order("eval_accuracy"), cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_limits_are_bounded(database: Database, limit: int) -> None:
    with database.reading() as session, pytest.raises(ConfigError, match="limit"):
        ExperimentStore(session).list_page(limit=limit)
