"""Train an adapter, as `loramill train` does, and classify texts with it.

.venv/bin/python examples/01_train.py          # the experiment lies in results/ and in `loramill experiments list`
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from loramill.config.load import load_config
from loramill.database import Database
from loramill.inference.predictor import Predictor
from loramill.jobs.execute import execute_training
from loramill.jobs.submit import submit_training
from loramill.settings import Settings

QUICKSTART = Path(__file__).parents[1] / "config" / "quickstart.yaml"


def main(rows: int) -> None:
    settings = Settings.load()
    config = load_config(
        QUICKSTART, {"experiment_name": "example", "data.train_samples": rows, "data.eval_samples": 500}
    )
    with contextlib.closing(Database(settings.effective_database_url)) as database:
        database.upgrade()
        folder = submit_training(config, settings=settings, database=database, enqueue=lambda _id: None)
        result = execute_training(
            folder, settings=settings, database=database, on_event=show, should_stop=lambda: False
        )
    print(f"{folder.path}: accuracy {result.metrics['eval']['accuracy']:.3f}")
    for found in Predictor.open(folder).predict(["A warm, funny film.", "A dull, endless mess."]):
        print(f"{found.answer.label_name} ({found.answer.probability:.3f})  {found.text}")


def show(event: dict[str, object]) -> None:
    """Called for every logged step, evaluation, checkpoint and reading of the machine."""
    if event["type"] == "log":
        print(f"step {event['step']}  loss {event['loss']:.4f}")


if __name__ == "__main__":
    main(rows=int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
