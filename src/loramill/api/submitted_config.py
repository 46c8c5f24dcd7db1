"""What a config may say when it comes over the network: nothing that leads to other people's files."""

from __future__ import annotations

from pathlib import Path

from loramill.auth.permissions import CurrentUser
from loramill.base_models import PACKAGE_PREFIX
from loramill.config.schema import ExperimentConfig
from loramill.errors import ConfigError, Problem

RESULTS = "results"
SAMPLE, VERSION = "sample:", "version:"


def check_submitted(config: ExperimentConfig, user: CurrentUser) -> None:
    """Refuse paths of this machine; administrators may name any but where experiments are kept.

    Raises:
        ConfigError: every key that names one.
    """
    problems = []
    if config.training.output_dir != RESULTS:
        problems.append(Problem("training.output_dir", config.training.output_dir, f"must be {RESULTS!r} here"))
    if not user.is_admin:
        if is_path(config.data.dataset_name, (SAMPLE,)) or config.data.dataset_name.startswith(VERSION):
            problems.append(_not_here("data.dataset_name", config.data.dataset_name))
        if is_path(config.model.name, (PACKAGE_PREFIX,)):
            problems.append(_not_here("model.name", config.model.name))
    if problems:
        raise ConfigError(problems, source="config")


def is_path(name: str, schemes: tuple[str, ...]) -> bool:
    """Whether a name would be looked up in this machine's files: judged by its form, and by what is there."""
    if name.startswith(schemes):
        return False
    parts = Path(name).parts
    if name.startswith((".", "~")) or "\\" in name or ".." in parts or Path(name).is_absolute() or len(parts) > 2:
        return True
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return True


def _not_here(key: str, name: str) -> Problem:
    return Problem(key, name[:80], "is data of the server, which only administrators may name")
