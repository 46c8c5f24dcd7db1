"""Train several adapters side by side on one base, as `loramill sweep` does.

.venv/bin/python examples/03_sweep.py
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from loramill.config.load import load_config
from loramill.database import Database
from loramill.jobs.sweep import SweepRunner, new_sweep
from loramill.jobs.sweep_search import close_sweep, run_search, view_of
from loramill.settings import Settings
from loramill.sweeps.search import Search

QUICKSTART = Path(__file__).parents[1] / "config" / "quickstart.yaml"
GRID = ("lora.r=4,8", "training.learning_rate=1e-3,2e-3")


def main(rows: int) -> None:
    settings = Settings.load()
    config = load_config(
        QUICKSTART, {"experiment_name": "example", "data.train_samples": rows, "data.eval_samples": 500}
    )
    sweep = new_sweep(config, halving=None, search=Search(GRID))
    with contextlib.closing(Database(settings.effective_database_url)) as database:
        database.upgrade()
        run_search(
            SweepRunner(
                sweep,
                settings=settings,
                database=database,
                on_event=lambda _event: None,
                should_stop=lambda: False,
            )
        )
        close_sweep(sweep, settings=settings, database=database, by="examples/03_sweep.py")
    view = view_of(sweep, settings)
    for trial in view.ranked():
        print(f"{trial.folder.id}  {trial.overrides}  {view.metric} {trial.value:.3f}")
    print(f"{view.best} is in the stage staging: loramill predict {view.best} TEXT")


if __name__ == "__main__":
    main(rows=int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
