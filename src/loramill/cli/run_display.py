"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from loramill.experiments.folder import ExperimentFolder
from loramill.jobs.events import describe_event

SHOWN_METRICS = (
    ("eval", "accuracy", "accuracy", "{:.4f}"),
    ("eval", "f1_macro", "F1 (macro)", "{:.4f}"),
    ("eval", "auc", "AUC", "{:.4f}"),
    ("eval", "pearson", "Pearson correlation", "{:.4f}"),
    ("eval", "loss", "evaluation loss", "{:.4f}"),
    ("eval", "ece", "calibration error (ECE)", "{:.4f}"),
    ("eval", "samples", "rows evaluated", "{:,}"),
    ("train", "samples", "rows trained on", "{:,}"),
    ("train", "trainable_parameters", "trained parameters", "{:,}"),
    ("train", "runtime", "training time", "{:.1f} s"),
    ("train", "samples_per_second", "speed", "{:.0f} samples/s"),
)


class ProgressLines:
    """Shows events as they come; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  rate {task.fields[rate]}  {task.fields[speed]} samples/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressLines:
        self._bar.start()
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Advance the bar, or print the event's sentence."""
        if event["type"] == "log" and self._console.is_terminal:
            self._advance(event)
        elif event["type"] not in ("status", "checkpoint") and (sentence := describe_event(event)):
            style = "yellow" if event["type"] == "warning" else ""
            self._console.print(escape(sentence), style=style, highlight=False, soft_wrap=True)

    def _advance(self, event: dict[str, Any]) -> None:
        fields: dict[str, Any] = {
            "loss": f"{event['loss']:.4f}",
            "rate": f"{event['learning_rate']:.1e}",
            "speed": f"{event['samples_per_second']:.0f}",
        }
        if self._task is None:
            self._task = self._bar.add_task("training", total=event["total_steps"], **fields)
        self._bar.update(self._task, completed=event["step"], total=event["total_steps"], **fields)


class SweepLines(ProgressLines):
    """Events of many trials: one bar over all their steps, each evaluation under its trial's name, notes once.

    The events carry ``experiment_id``.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._steps: dict[str, tuple[int, int]] = {}
        self._said: set[str] = set()

    def show(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "log":
                self._steps[event["experiment_id"]] = event["step"], event["total_steps"]
                if self._console.is_terminal:
                    done, total = (sum(numbers) for numbers in zip(*self._steps.values(), strict=True))
                    self._advance({**event, "step": done, "total_steps": total})
            case "eval":
                line = f"{event['experiment_id']}  {describe_event(event)}"
                self._console.print(escape(line), highlight=False, soft_wrap=True)
            case "note" | "warning" if event["message"] not in self._said:
                self._said.add(event["message"])
                super().show(event)


def result_table(folder: ExperimentFolder, metrics: dict[str, Any]) -> Table:
    """The metrics that matter first, and where everything was written."""
    table = Table(title=f"Experiment {escape(folder.id)}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for section, key, label, form in SHOWN_METRICS:
        value = metrics[section].get(key)
        if value is not None:
            table.add_row(label, form.format(value))
    table.add_section()
    table.add_row("model", escape(str(folder.final_model)))
    table.add_row("metrics", escape(str(folder.metrics_file)))
    table.add_row("log", escape(str(folder.log_file)))
    return table
