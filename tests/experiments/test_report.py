from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loramill.experiments.folder import ExperimentFolder
from loramill.experiments.report import write_report

from_outside = re.compile(r"""(?:src|href|url)\s*[=(]\s*["']?(?!#)[^"')]""")


class Text(HTMLParser):
    """The text of a page, and the tags in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags = "", []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def report_of(folder: ExperimentFolder) -> Text:
    write_report(folder)
    return Text(folder.report_file.read_text(encoding="utf-8"))


def test_everything_about_a_run_is_on_its_page(make_run) -> None:
    folder = make_run("demo", np.arange(200) % 5 != 0, texts=[f"text {row} 中文" for row in range(200)])
    page = report_of(folder)
    for expected in (
        folder.id, "macro F1", "0.8", "Learning curves", "Confusion matrix", "Calibration", "By class", "positive",
        "Worst rows", "中文", "text_empty", "drop", "Resources", "Memory, GiB", "v-train", "v-eval", "torch 2",
        "learning_rate: 0.0005",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert page.tags.count("svg") == 7
    assert {path.name for path in folder.plots.iterdir()} >= {"loss.svg", "confusion_matrix.svg", "calibration.svg"}


def test_the_worst_rows_are_the_worst(make_run) -> None:
    folder = make_run("demo", texts=[f"text-{row}." for row in range(200)])
    loss = np.zeros(200)
    loss[[17, 5]] = 9.0, 8.0
    table = pq.read_table(folder.predictions_file)
    pq.write_table(table.set_column(table.column_names.index("loss"), "loss", pa.array(loss)), folder.predictions_file)
    shown = report_of(folder).text
    assert shown.index("text-17.") < shown.index("text-5.")


def test_it_needs_no_network_and_runs_no_script(make_run) -> None:
    folder = make_run("demo", texts=['<script>alert(1)</script><img src="http://x/y">'] * 200)
    page = report_of(folder)
    source = folder.report_file.read_text(encoding="utf-8")
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert "default-src 'none'" in source
    assert not from_outside.findall(re.sub(r">[^<]*<", "><", source))


def test_a_run_that_has_hardly_begun(results: Path) -> None:
    folder = ExperimentFolder.create(results, "young", datetime(2026, 1, 1))
    folder.write_config("experiment_name: young\n")
    assert "young" in report_of(folder).text


def test_regression_and_several_labels(make_run) -> None:
    folder = make_run()
    folder.write_metrics({"eval": {"mse": 0.25, "loss": 0.25, "pearson": 0.5}})
    folder.write_data({"train_rows": 9, "report": {"label_counts": {}, "imbalance_ratio": 1.0}})
    columns = {"row": [1, 2], "label": [0.5, 1.5], "prediction": [0.25, 1.0], "loss": [0.1, 0.3]}
    columns["probabilities"] = pa.array([[0.25], [1.0]], type=pa.list_(pa.float32()))
    pq.write_table(pa.table(columns), folder.predictions_file)
    shown = report_of(folder).text
    assert "mean squared error" in shown
    assert "Pearson correlation" in shown
    assert not [word for word in ("p(label)", "imbalance ratio") if word in shown], "there are no classes"
    folder.write_data({"label_names": ["negative", "positive"]})
    columns = {"row": [1, 2], "label": [[1, 0], [1, 1]], "prediction": [[0, 0], [1, 1]], "loss": [0.1, 0.3]}
    pq.write_table(pa.table(columns), folder.predictions_file)
    assert "negative, positive" in report_of(folder).text


def test_no_evaluated_rows(make_run) -> None:
    folder = make_run()
    schema = pq.read_schema(folder.predictions_file)
    pq.write_table(schema.empty_table(), folder.predictions_file)
    assert "Worst rows" not in report_of(folder).text


def test_a_report_is_cheap(make_run) -> None:
    folder = make_run("demo", np.random.default_rng(0).random(2000) < 0.8)
    write_report(folder)
    start = time.process_time()
    write_report(folder)
    assert time.process_time() - start < 0.5


def test_it_imports_no_plotting_library() -> None:
    heavy = {"matplotlib", "jinja2", "pyarrow"}
    script = f"import sys, loramill.experiments.report; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
