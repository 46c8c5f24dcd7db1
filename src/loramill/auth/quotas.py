"""How much one user may use. Whoever submits counts the use; the limits and the refusal are here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Row

from loramill.auth.models import User
from loramill.errors import Problem, QuotaExceededError


@dataclass(frozen=True)
class Quota:
    """The most that one user may have."""

    max_concurrent_jobs: int
    max_daily_submits: int
    max_stored_experiments: int
    max_stored_bytes: int


@dataclass(frozen=True)
class Usage:
    """What one user has now.

    Args:
        concurrent_jobs: waiting and running.
        daily_submits: in the last 24 hours.
        stored_experiments: not deleted.
        stored_bytes: files of the stored experiments.
    """

    concurrent_jobs: int = 0
    daily_submits: int = 0
    stored_experiments: int = 0
    stored_bytes: int = 0


DEFAULT_QUOTA = Quota(
    max_concurrent_jobs=100, max_daily_submits=1_000, max_stored_experiments=10_000, max_stored_bytes=100 * 2**30
)


def quota_of(user: User | Row[Any]) -> Quota:
    """The user's own limits, and the default for each that is not set."""
    own = {limit.name: getattr(user, limit.name) for limit in fields(Quota)}
    return Quota(**{name: getattr(DEFAULT_QUOTA, name) if value is None else value for name, value in own.items()})


def check_quota(quota: Quota, usage: Usage) -> None:
    """Refuse one more job when any limit is reached.

    Two submits at the same moment see the same use; read the quota with ``UserStore.lock_quota`` in the
    transaction that adds the job, so that they come one after the other.

    Raises:
        QuotaExceededError: every limit that is reached, with what is used.
    """
    problems = []
    for limit in fields(Quota):
        allowed = getattr(quota, limit.name)
        used = getattr(usage, limit.name.removeprefix("max_"))
        if used >= allowed:
            problems.append(Problem(limit.name, used, f"at most {allowed:,}, and {used:,} used"))
    if problems:
        raise QuotaExceededError(problems, fix="Wait for jobs to finish, delete experiments, or ask an administrator.")
