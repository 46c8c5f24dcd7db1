"""Types of the fixtures of the API's tests."""

from __future__ import annotations

from collections.abc import Callable

SignIn = Callable[[str], dict[str, str]]
"""User name -> headers."""

AddExperiment = Callable[..., str]
"""Owner, status, name -> experiment id."""
