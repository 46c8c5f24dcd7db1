"""Events of a run as sentences, for logs and terminals without a progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def describe_event(event: Mapping[str, Any]) -> str:
    """One line for a person; empty for events that are only for machines."""
    match event["type"]:
        case "note" | "warning":
            return str(event["message"])
        case "status":
            failed = f" [{event['code']}] {event['message']}" if "code" in event else ""
            return f"Status: {event['status']}{failed}"
        case "log":
            return (
                f"step {event['step']}/{event['total_steps']}  epoch {event['epoch']:.2f}  loss {event['loss']:.4f}  "
                f"rate {event['learning_rate']:.2e}  {event['samples_per_second']:.0f} samples/s"
            )
        case "eval":
            shown = ("eval_loss", "eval_accuracy", "eval_f1_macro", "eval_mse", "eval_pearson")
            numbers = [f"{name[5:]} {event['metrics'][name]:.4f}" for name in shown if name in event["metrics"]]
            return f"step {event['step']}/{event['total_steps']}  evaluation: {', '.join(numbers)}"
        case "checkpoint":
            return f"Saved {event['path']}"
        case _:
            return ""
