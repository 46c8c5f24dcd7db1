"""Fill a database with very many experiments, fast: what the measurements in this folder read.

python benchmarks/experiments/generate.py sqlite:////tmp/many.db --experiments 100000 --metrics 10
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, text

from loramill.config.schema import ExperimentConfig
from loramill.database import Database
from loramill.experiments.models import Experiment, ExperimentConfigRow, Metric, Tag

MODELS = ("distilbert-base-uncased", "roberta-base", "albert-base-v2", "bert-base-chinese", "package:minilm")
DATASETS = ("glue/sst2", "sample:movie_reviews", "sample:chinese_reviews", "imdb")
METRICS = ("eval_accuracy", "eval_loss", "eval_f1_macro", "eval_precision_macro", "eval_recall_macro", "eval_auc")
METRICS += ("eval_ece", "train_loss", "train_runtime", "train_samples_per_second")
START = datetime(2025, 1, 1, tzinfo=UTC)
BATCH = 5_000


def fill(database: Database, experiments: int, metrics: int, seed: int = 0) -> None:
    """Add finished experiments whose metrics are random and whose names, models and data sets repeat."""
    draw = random.Random(seed)
    config = ExperimentConfig().model_dump(mode="json")
    for first in range(1, experiments + 1, BATCH):
        numbers = range(first, min(first + BATCH, experiments + 1))
        with database.transaction() as session:
            rows = [_experiment(number, draw) for number in numbers]
            session.execute(insert(Experiment), rows)
            configs = [{"experiment_number": number, "value": config} for number in numbers]
            session.execute(insert(ExperimentConfigRow), configs)
            session.execute(insert(Metric), [metric for row in rows for metric in _metrics(row, metrics, draw)])
            session.execute(insert(Tag), [{"experiment_number": n, "name": f"team-{n % 20}"} for n in numbers])
    with database.transaction() as session:
        session.execute(text("ANALYZE"))


def _experiment(number: int, draw: random.Random) -> dict[str, Any]:
    created = START + timedelta(seconds=60 * number)
    name = f"{draw.choice(('baseline', 'sweep', 'ablation', 'nightly'))}_{draw.choice(('r8', 'r16', 'lr', 'data'))}"
    return {
        "number": number,
        "id": f"{name}_{created:%Y%m%d_%H%M%S}",
        "name": name,
        "folder": f"{name}_{created:%Y%m%d_%H%M%S}",
        "status": "SUCCESS",
        "owner": f"user{draw.randrange(200)}",
        "model_name": draw.choice(MODELS),
        "dataset_name": draw.choice(DATASETS),
        "task": "SEQ_CLS",
        "source": "loramill",
        "created_at": created,
        "finished_at": created,
        "train_runtime": draw.uniform(10, 3600),
        "eval_accuracy": draw.uniform(0.5, 1.0),
        "notes": "",
    }


def _metrics(row: dict[str, Any], count: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    for name in METRICS[:count]:
        yield {"experiment_number": row["number"], "name": name, "value": row.get(name, draw.random())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--experiments", type=int, default=100_000)
    parser.add_argument("--metrics", type=int, default=len(METRICS))
    arguments = parser.parse_args()
    database = Database(arguments.url)
    database.upgrade()
    fill(database, arguments.experiments, arguments.metrics)
    database.close()


if __name__ == "__main__":
    main()
