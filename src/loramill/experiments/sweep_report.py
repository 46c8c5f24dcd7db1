"""The page of a sweep: its trials as a table, as parallel coordinates and as learning curves; no network needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loramill.experiments.charts import Series, format_number, line_chart
from loramill.experiments.curves import Curve, read_curves
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.html import as_svg, render_page
from loramill.experiments.parallel_coordinates import CoordinateLine, parallel_coordinates
from loramill.files import write_atomic

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class SweptTrial:
    """One trial of a sweep.

    Attributes:
        value: the metric that chooses the best, as measured; ``None`` before it is known.
        score: the same, turned so that more is better.
    """

    folder: ExperimentFolder
    overrides: Mapping[str, object]
    status: str
    value: float | None
    score: float | None


@dataclass(frozen=True)
class SweepView:
    """What the page shows of a sweep."""

    sweep_id: str
    metric: str
    best: str | None
    trials: Sequence[SweptTrial]

    @property
    def keys(self) -> list[str]:
        """The config keys that the sweep varies."""
        return list(dict.fromkeys(key for trial in self.trials for key in trial.overrides))

    def ranked(self) -> list[SweptTrial]:
        """Best first; those that were stopped early come after those that ran to their end."""
        return sorted(self.trials, key=_rank)


def write_sweep_report(folder: Path, view: SweepView) -> Path:
    """Write ``report.html`` and ``plots/*.svg`` into the sweep's folder; returns the page.

    Raises:
        StorageError: they cannot be written.
    """
    plots = draw_sweep_plots(view)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for name, chart in plots.items():
        write_atomic(folder / "plots" / f"{name}.svg", chart)
    page = folder / REPORT_FILE
    write_atomic(page, render_sweep_report(view, plots))
    return page


def draw_sweep_plots(view: SweepView) -> dict[str, str]:
    """Name -> SVG of every chart that the sweep has data for; names start with the best trial's."""
    curves = {trial.folder.id: read_curves(trial.folder.read_events()) for trial in view.ranked()}
    drawn = {
        "parallel_coordinates": _coordinates(view),
        "learning_curves": _curve_chart(f"{view.metric}, evaluated", curves, f"eval_{view.metric}"),
        "evaluation_loss": _curve_chart("Loss, evaluated", curves, "eval_loss") if view.metric != "loss" else "",
        "training_loss": _curve_chart("Loss, training", curves, "train_loss"),
    }
    return {name: chart for name, chart in drawn.items() if chart}


def render_sweep_report(view: SweepView, plots: Mapping[str, str]) -> str:
    """The page, with these plots inside."""
    keys = view.keys
    states = [trial.status for trial in view.trials]
    return render_page(
        "sweep.html.j2",
        title=view.sweep_id,
        subtitle=", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        best=view.best,
        metric=view.metric,
        coordinates=as_svg([plots.get("parallel_coordinates", "")]),
        curves=as_svg([plots[name] for name in plots if name != "parallel_coordinates"]),
        columns=["trial", *keys, view.metric, "status"],
        rows=[(trial.folder.id == view.best, _cells(trial, keys)) for trial in view.ranked()],
    )


def _cells(trial: SweptTrial, keys: Sequence[str]) -> list[str]:
    settings = [_shown(trial.overrides.get(key)) for key in keys]
    return [trial.folder.id, *settings, _shown(trial.value), trial.status]


def _coordinates(view: SweepView) -> str:
    lines = [
        CoordinateLine(
            trial.folder.id,
            {**trial.overrides, view.metric: trial.value},
            highlighted=trial.folder.id == view.best,
            dashed=trial.status == "PRUNED",
        )
        for trial in view.trials
        if trial.value is not None
    ]
    return parallel_coordinates("What the trials tried, and what came of it", lines, [*view.keys, view.metric])


def _curve_chart(title: str, curves: Mapping[str, Mapping[str, Curve]], name: str) -> str:
    """A line for each trial that has one; a single point is in the table already."""
    series = [Series(trial, found[name]) for trial, found in curves.items() if len(found.get(name, ())) > 1]
    return line_chart(title, series, "step")


def _rank(trial: SweptTrial) -> tuple[bool, bool, float]:
    return trial.status != "SUCCESS", trial.score is None, -(trial.score or 0.0)


def _shown(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return format_number(value)
    return "" if value is None else str(value)
