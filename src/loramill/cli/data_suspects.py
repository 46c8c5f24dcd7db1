"""``loramill data suspects``: the rows of a run that are probably mislabelled."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loramill.cli.output import AsJson, print_json
from loramill.cli.run_display import ProgressLines
from loramill.cli.tables import print_people
from loramill.cli.train import STOPPED_BY_USER, stop_on_signals
from loramill.experiments.folder import ExperimentFolder
from loramill.jobs.folders import recorded_config
from loramill.settings import Settings

EXCERPT = 80


def suspects(
    experiment_id: Annotated[str, typer.Argument(metavar="ID", help="A finished experiment.")],
    top: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 20,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Models that judge each other's rows.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Rank the rows that a run trained on by how probably their label is wrong.

    Trains one adapter for each fold, side by side, and lets each judge the rows that it did not see; what the words
    alone say (naive Bayes) is a second opinion. That takes about as long as ``folds - 1`` runs, and twice
    that if the run had one epoch.
    """
    settings = Settings.load()
    config = recorded_config(ExperimentFolder.open(settings.results_folder, experiment_id))
    from loramill.data.suspects import rank_suspects
    from loramill.training.out_of_fold import predict_out_of_fold

    with stop_on_signals() as should_stop, ProgressLines(Console(stderr=True)) as progress:
        judged = predict_out_of_fold(
            config, data_folder=settings.data_folder, folds=folds, on_event=progress.show, should_stop=should_stop
        )
    if judged is None:
        raise typer.Exit(STOPPED_BY_USER)
    train, names = judged.data.train, judged.data.label_names
    labels = train.labels.astype(np.int64)
    ranked = rank_suspects(judged.probabilities, labels)
    rows = [
        {
            "rank": place + 1,
            "row": int(train.row_ids[row]),
            "label": names[labels[row]],
            "suggested": names[ranked.suggested[place]],
            "probability": float(judged.probabilities[row, labels[row]]),
            "mislabelled": bool(ranked.is_issue[place]),
            "text": train.texts[row],
        }
        for place, row in enumerate(ranked.rows[:top])
    ]
    if as_json:
        counted = {"rows": len(train), "mislabelled": int(ranked.is_issue.sum())}
        print_json({"experiment_id": experiment_id, **counted, "suspects": rows})
    else:
        print_people(_table(rows, int(ranked.is_issue.sum()), len(train)))


def _table(rows: list[dict[str, Any]], found: int, total: int) -> Table:
    title = f"{found:,} of {total:,} rows are probably mislabelled"
    table = Table("row", "label", "suggested", "p(label)", "text", title=title, title_justify="left")
    for row in rows:
        text = row["text"] if len(row["text"]) <= EXCERPT else f"{row['text'][: EXCERPT - 1]}…"
        table.add_row(str(row["row"]), row["label"], row["suggested"], f"{row['probability']:.3f}", Text(text))
    return table
