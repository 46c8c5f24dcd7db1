from __future__ import annotations

from xml.etree import ElementTree

import pytest

from loramill.experiments.charts import (
    Bar,
    Series,
    bar_chart,
    calibration_chart,
    format_number,
    line_chart,
    matrix_chart,
    nice_ticks,
)

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>&\"'"


def texts(chart: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(chart).iter(f"{SVG}text")]


def test_a_line_chart_has_a_line_for_each_series() -> None:
    chart = line_chart("Loss", [Series("train", ((0, 1.0), (10, 0.5))), Series("eval", ((0, 1.2), (10, 0.6)))], "step")
    lines = [path for path in ElementTree.fromstring(chart).iter(f"{SVG}path") if path.get("stroke-width") == "2"]
    assert len(lines) == 2
    assert {"Loss", "step", "train", "eval"} <= set(texts(chart))


@pytest.mark.parametrize("points", [((3, 0.5),), ((1, 0.0), (2, 0.0)), ((1, -1e-9), (2, 1e9)), ((0, 5.0), (0, 5.0))])
def test_odd_curves_stay_inside(points: tuple[tuple[float, float], ...]) -> None:
    chart = line_chart("x", [Series("a", points)], "step")
    for circle in ElementTree.fromstring(chart).iter(f"{SVG}circle"):
        assert 0 <= float(circle.get("cx")) <= 560
        assert 0 <= float(circle.get("cy")) <= 280


def test_nothing_to_draw() -> None:
    assert line_chart("x", [Series("a", ())], "step") == ""
    assert bar_chart("x", []) == matrix_chart("x", [], []) == calibration_chart("x", ()) == ""


def test_long_curves_keep_their_extremes_and_stay_small() -> None:
    points = tuple((float(step), 100.0 if step == 54_321 else step % 7) for step in range(100_000))
    chart = line_chart("x", [Series("a", points)], "step")
    [path] = [path for path in ElementTree.fromstring(chart).iter(f"{SVG}path") if path.get("stroke-width") == "2"]
    heights = [float(place.split()[1]) for place in path.get("d").removeprefix("M").split("L")]
    assert len(heights) <= 700
    assert min(heights) < 80 < sorted(heights)[1]


def test_names_cannot_break_out() -> None:
    series = [Series(HOSTILE, ((0, 1.0), (1, 2.0)))] * 2
    charts = [line_chart(HOSTILE, series, HOSTILE), bar_chart(HOSTILE, [Bar(HOSTILE, 1)])]
    charts.append(matrix_chart(HOSTILE, [[1]], [HOSTILE]))
    for chart in charts:
        ElementTree.fromstring(chart)
        assert "<script" not in chart


def test_a_confusion_matrix_shows_its_counts() -> None:
    assert {"7", "3", "0", "5", "no", "yes"} <= set(texts(matrix_chart("x", [[7, 3], [0, 5]], ["no", "yes"])))
    ElementTree.fromstring(matrix_chart("x", [[1] * 50] * 50, [str(name) for name in range(50)]))


def test_ticks_are_round() -> None:
    assert nice_ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert nice_ticks(3, 97) == pytest.approx([20, 40, 60, 80])
    assert nice_ticks(5, 5) == [5]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456, "0.1235"), (1234, "1234"), (12_345, "12.3k"), (2e6, "2M"), (3.5e9, "3.5G"), (-0.5, "-0.5"), (0, "0")],
)
def test_numbers_for_people(value: float, shown: str) -> None:
    assert format_number(value) == shown
