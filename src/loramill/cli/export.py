"""``loramill export``: a trained model for others to use."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from loramill.cli.output import AsJson, print_json
from loramill.settings import Settings

app = typer.Typer()


class Format(StrEnum):
    """What to write; the values are those of ``training.export.ExportFormat``."""

    ADAPTER = "adapter"
    MERGED = "merged"
    ONNX = "onnx"


@app.command()
def export(
    experiment_id: str,
    kind: Annotated[Format, typer.Option("--format", help="PEFT adapter, one Transformers model, or ONNX.")],
    to: Annotated[Path | None, typer.Option(help="New folder; artifacts/<format>/ if absent.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export a model and check that it gives the same logits where it will be used."""
    from loramill.inference.model_names import resolve_experiment
    from loramill.training.export import export_model  # torch and transformers: seconds that no other command pays

    experiment = resolve_experiment(Settings.load(), experiment_id)
    done = export_model(experiment, to or experiment.artifacts / kind.value, kind.value)
    if as_json:
        print_json({"folder": str(done.folder), "format": kind.value, "difference": done.difference})
    else:
        typer.echo(f"{done.folder}\nLogits differ from the trained model's by {done.difference:.1e} at most.")
