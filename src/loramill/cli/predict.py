"""``loramill predict``: classify texts with a trained experiment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loramill.cli.output import AsJson, print_json
from loramill.errors import ConfigError, Problem
from loramill.imports import large_import
from loramill.settings import Settings

if TYPE_CHECKING:
    from loramill.inference.predictor import Prediction

app = typer.Typer()

TextRow = tuple[str, str | None]
"""A text, and the second one of a pair."""


@app.command()
def predict(
    experiment: Annotated[str, typer.Argument(metavar="ID", help="Experiment, registry alias or stage, or `latest`.")],
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts to classify.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='One text a line; .jsonl: {"text": ..., "text_pair": ...}; - reads the standard input.',
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify texts with the model of an experiment."""
    rows: list[TextRow] = [(text, None) for text in texts or []]
    if file:
        rows += read_rows(file)
    _refuse_unusable(rows)
    predictions = _predict(experiment, rows)
    if as_json:
        print_json([{**found.as_dict(), "logits": found.logits.tolist()} for found in predictions])
        return
    for found in predictions:
        typer.echo(describe(found))
    for warning in dict.fromkeys(found.as_dict()["warning"] for found in predictions):
        if warning:
            typer.echo(f"warning: {warning}", err=True)


def read_rows(file: Path) -> list[TextRow]:
    """The texts of a file; lines without any character are left out.

    Raises:
        ConfigError: with every line that is not what it should be.
    """
    try:
        content = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("--file", str(file), f"cannot be read: {error}")], source="predict") from error
    lines = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    if file.suffix != ".jsonl":
        return [(line, None) for _, line in lines]
    rows = [(number, _read_json_row(line)) for number, line in lines]
    problems = [
        Problem(f"{file}:{number}", None, 'is not {"text": "...", "text_pair": "..."}')
        for number, row in rows
        if row is None
    ]
    if problems:
        raise ConfigError(problems, source="predict")
    return [row for _, row in rows if row is not None]


def describe(found: Prediction) -> str:
    """One line for people: the answer, how sure it is, and the text."""
    answer = found.answer
    names = answer.label_name if isinstance(answer.label_name, list) else [answer.label_name]
    chances = answer.probability if isinstance(answer.probability, list) else [answer.probability]
    shown = ", ".join(
        f"{answer.label:.4g}" if chance is None else f"{name} ({chance:.4f})"
        for name, chance in zip(names, chances, strict=True)
    )
    text = " ".join(found.text.split())
    return f"{shown or 'no label'}  {text if len(text) <= 80 else text[:77] + '...'}"


def _predict(experiment: str, rows: list[TextRow]) -> list[Prediction]:
    with large_import():  # torch: not before the arguments are known to be right
        from loramill.inference.model_names import resolve_experiment
        from loramill.inference.predictor import Predictor

    predictor = Predictor.open(resolve_experiment(Settings.load(), experiment))
    pairs = [pair for _, pair in rows if pair is not None]
    return predictor.predict([text for text, _ in rows], pairs or None)


def _refuse_unusable(rows: list[TextRow]) -> None:
    problems = []
    if not rows:
        problems.append(Problem("TEXT", None, "give at least one text, or --file"))
    if any(not text.strip() for text, _ in rows):
        problems.append(Problem("TEXT", "", "is empty"))
    if len({pair is None for _, pair in rows}) > 1:
        problems.append(Problem("text_pair", None, "every row needs one, or none has one"))
    if problems:
        raise ConfigError(problems, source="predict")


def _read_json_row(line: str) -> TextRow | None:
    """A text, two texts, or an object with ``text`` and perhaps ``text_pair``; ``None`` for anything else."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match value:
        case str():
            return value, None
        case [str(text), str(pair)]:
            return text, pair
        case {"text": str(text)}:
            pair = value.get("text_pair")
            return (text, pair) if isinstance(pair, str | None) else None
    return None
