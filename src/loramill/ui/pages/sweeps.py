"""Sweeps."""

from __future__ import annotations


def draw() -> None:
    """In work."""
