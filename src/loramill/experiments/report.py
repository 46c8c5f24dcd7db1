"""``report.html`` of one run, and the plots in it as files: what happened, how good it is, and where it fails.

Made from the folder alone, so it can be made again at any time. For a run of 2,000 evaluated rows it takes some
50 ms, mostly the first import of Arrow and Jinja; nothing is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from loramill.experiments.charts import Series, calibration_chart, format_number, line_chart, matrix_chart
from loramill.experiments.curves import Curve, read_curves, read_resource_curves
from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.html import as_svg, render_page
from loramill.experiments.predictions import Predictions, read_predictions
from loramill.experiments.report_facts import data_facts, finding_facts, lineage_facts, resource_facts
from loramill.files import write_atomic

WORST_ROWS = 20
CALIBRATION_BINS = 10
SHOWN_TEXT = 400
TILES = (
    ("eval", "accuracy", "accuracy"),
    ("eval", "f1_macro", "macro F1"),
    ("eval", "auc", "AUC"),
    ("eval", "mse", "mean squared error"),
    ("eval", "mae", "mean absolute error"),
    ("eval", "pearson", "Pearson correlation"),
    ("eval", "loss", "loss"),
    ("eval", "ece", "calibration error"),
    ("train", "runtime", "seconds of training"),
    ("train", "samples_per_second", "samples/s"),
)


def write_report(folder: ExperimentFolder) -> None:
    """Write ``report.html`` and ``plots/*.svg`` from what is in the folder, however far the run got.

    Raises:
        CorruptFileError: a file of the run cannot be read.
        StorageError: the report cannot be written.
    """
    plots = draw_plots(folder)
    folder.plots.mkdir(exist_ok=True)
    for name, chart in plots.items():
        write_atomic(folder.plots / f"{name}.svg", chart)
    write_atomic(folder.report_file, render_report(folder, plots))


def draw_plots(folder: ExperimentFolder) -> dict[str, str]:
    """Name -> SVG of every chart that the run has data for."""
    events, metrics, data = folder.read_events(), folder.read_metrics(), folder.read_data()
    names = [str(name) for name in data.get("label_names", [])]
    confusion = metrics.get("eval", {}).get("confusion_matrix", [])
    drawn = {
        **_curve_charts(read_curves(events)),
        "confusion_matrix": matrix_chart("Confusion matrix", confusion, _class_names(names, len(confusion))),
        "calibration": _calibration_chart(read_predictions(folder)),
        **_resource_charts(read_resource_curves(events)),
    }
    return {name: chart for name, chart in drawn.items() if chart}


def render_report(folder: ExperimentFolder, plots: Mapping[str, str]) -> str:
    """The page, with these plots inside."""
    metrics, data, config = folder.read_metrics(), folder.read_data(), folder.read_config_tree()
    predictions = read_predictions(folder)
    names = [str(name) for name in data.get("label_names", [])]
    worst = _worst_rows(predictions, names) if predictions else []
    return render_page(
        "report.html.j2",
        title=folder.id,
        subtitle=_subtitle(config, data),
        tiles=_tiles(metrics),
        curves=_chosen(plots, "loss", "accuracy", "f1_macro", "learning_rate"),
        quality=_chosen(plots, "confusion_matrix", "calibration"),
        per_class=_per_class(metrics),
        worst=worst,
        worst_have_text=any("text" in row for row in worst),
        worst_have_chance=any(row["chance"] for row in worst),
        data=data_facts(data),
        findings=finding_facts(data.get("report", {})),
        resource_charts=_chosen(plots, "cpu", "memory", "gpu"),
        resources=resource_facts(metrics.get("system", {})),
        lineage=lineage_facts(config, data, folder.read_environment()),
        config=folder.read_config(),
    )


def _curve_charts(curves: Mapping[str, Curve]) -> dict[str, str]:
    def by_step(title: str, *names: str) -> str:
        """A chart of what has at least two points; one number is a tile, not a curve."""
        found = [Series(name, curves[name]) for name in names if name in curves]
        return line_chart(title, found, "step") if any(len(one.points) > 1 for one in found) else ""

    return {
        "loss": by_step("Loss", "train_loss", "eval_loss"),
        "accuracy": by_step("Accuracy", "eval_accuracy"),
        "f1_macro": by_step("Macro F1", "eval_f1_macro"),
        "learning_rate": by_step("Learning rate", "train_learning_rate"),
    }


def _resource_charts(curves: Mapping[str, Curve]) -> dict[str, str]:
    def in_gib(name: str) -> Curve:
        return tuple((seconds, size / 2**30) for seconds, size in curves.get(name, ()))

    def over_time(title: str, *series: Series) -> str:
        return line_chart(title, [one for one in series if one.points], "seconds", from_zero=True)

    return {
        "cpu": over_time("CPU, % of one core", Series("CPU", curves.get("cpu_percent", ()))),
        "memory": over_time(
            "Memory, GiB", Series("process", in_gib("rss_bytes")), Series("GPU", in_gib("gpu_memory_bytes"))
        ),
        "gpu": over_time("GPU, %", Series("GPU", curves.get("gpu_percent", ()))),
    }


def _calibration_chart(predictions: Predictions | None) -> str:
    """Accuracy over confidence in equal bins: on the diagonal a model is as sure as it should be."""
    if predictions is None or predictions.probabilities is None or not _single_label(predictions):
        return ""
    confidence = predictions.probabilities.max(axis=1)
    which = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    points = [
        (float(confidence[which == index].mean()), float(predictions.right[which == index].mean()))
        for index in np.unique(which)
    ]
    return calibration_chart("Calibration: accuracy by confidence", tuple(points))


def _worst_rows(predictions: Predictions, names: list[str]) -> list[dict[str, Any]]:
    rows = []
    for place in np.argsort(-predictions.loss, kind="stable")[:WORST_ROWS]:
        label, prediction = predictions.label[place], predictions.prediction[place]
        row = {
            "row": int(predictions.row[place]),
            "label": _name_of(label, names),
            "prediction": _name_of(prediction, names),
            "chance": "",
            "loss": f"{predictions.loss[place]:.3f}",
        }
        if predictions.probabilities is not None and _single_label(predictions):
            row["chance"] = f"{predictions.probabilities[place, int(label)]:.3f}"
        if predictions.text is not None:
            row["text"] = predictions.text[place][:SHOWN_TEXT]
        rows.append(row)
    return rows


def _single_label(predictions: Predictions) -> bool:
    return predictions.is_classification and predictions.label.ndim == 1 and len(predictions.row) > 0


def _name_of(value: Any, names: list[str]) -> str:
    """A class by its name; several labels joined; a regression value as a number."""
    if np.ndim(value):
        return ", ".join(_name_of(index, names) for index in np.flatnonzero(value)) or "none"
    if np.issubdtype(np.asarray(value).dtype, np.integer):
        return _class_names(names, int(value) + 1)[int(value)]
    return format_number(float(value))


def _class_names(names: list[str], count: int) -> list[str]:
    return names[:count] + [str(index) for index in range(len(names), count)]


def _chosen(plots: Mapping[str, str], *names: str) -> list[Any]:
    return as_svg([plots[name] for name in names if name in plots])


def _subtitle(config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    model = (config.get("model") or {}).get("name", "unknown model")
    dataset = data.get("dataset_name") or (config.get("data") or {}).get("dataset_name", "unknown data")
    return f"{model} on {dataset}"


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(label, metrics.get(section, {}).get(key)) for section, key, label in TILES]
    return [(label, format_number(value)) for label, value in found if isinstance(value, int | float)]


def _per_class(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rates = ("precision", "recall", "f1")
    return [
        (name, *(f"{entry[rate]:.3f}" for rate in rates), str(entry.get("support", "")))
        for name, entry in metrics.get("eval", {}).get("per_class", {}).items()
    ]
