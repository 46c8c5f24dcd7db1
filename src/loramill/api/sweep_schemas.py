"""What the routes of sweeps take and give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from loramill.api.schemas import Body, Word
from loramill.experiments.models import Status
from loramill.jobs.job_tables import SweepJob
from loramill.jobs.submit_sweep import TrialRow
from loramill.jobs.sweep import Sweep
from loramill.sweeps.halving import Halving
from loramill.sweeps.search import Search

Value = bool | int | Annotated[float, Field(allow_inf_nan=False)] | Word


class HalvingRequest(Body):
    """Successive halving: all trials start, and only the best go on."""

    keep: int = Field(Halving.keep, ge=2, le=100, description="One trial in so many goes on.")
    rungs: int = Field(Halving.rungs, ge=1, le=10, description="How often trials are compared.")


class SweepRequest(Body):
    config: dict[str, Any] = Field(description="What all trials have in common.")
    space: dict[Word, list[Value] | Word] = Field(
        min_length=1, max_length=100, description="Key -> its values, or a range such as `1e-4..1e-2`."
    )
    sampler: Literal["grid", "random", "tpe"] | None = Field(None, description="grid or random by itself.")
    trials: int | None = Field(None, ge=1, le=1000, description="How many; all of a grid if absent.")
    batch: int = Field(8, ge=1, le=1000, description="Trials that tpe asks for at a time.")
    halving: HalvingRequest | None = None
    priority: int = Field(0, ge=-10, le=10, description="Higher ones are looked at first.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "config": {"experiment_name": "first", "data": {"dataset_name": "sample:movie_reviews"}},
                "space": {"lora.r": [4, 8, 16], "training.learning_rate": "1e-4..1e-2"},
                "trials": 8,
            }
        }
    )

    def search(self, seed: int) -> Search:
        return Search(
            tuple(_assignment(key, values) for key, values in self.space.items()),
            self.sampler,
            self.trials,
            self.batch,
            seed,
        )

    def chosen_halving(self) -> Halving | None:
        return Halving(self.halving.keep, self.halving.rungs) if self.halving else None


class SweepAccepted(BaseModel):
    sweep_id: str


class BestTrial(BaseModel):
    experiment_id: str
    overrides: dict[str, Any]
    score: float | None = Field(description="The metric, turned so that more is better.")


class SweepReply(BaseModel):
    """A sweep. ``trials`` counts those recorded so far, by status."""

    sweep_id: str
    name: str
    owner: str | None
    status: Status
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested: bool
    progress: dict[str, Any] | None
    error: dict[str, str | None] | None
    request: dict[str, Any]
    trials: dict[str, int]

    @classmethod
    def of(cls, row: SweepJob, trials: Mapping[str, int]) -> SweepReply:
        failed = {"code": row.error_code, "message": row.error_message} if row.error_code else None
        known = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(**known, sweep_id=row.id, error=failed, trials=dict(trials))


class SweepDetails(SweepReply):
    """One sweep: ``metric`` chooses ``best``."""

    metric: str
    best: BestTrial | None

    @classmethod
    def with_best(cls, row: SweepJob, trials: Mapping[str, int], sweep: Sweep) -> SweepDetails:
        best = sweep.best
        shown = (
            BestTrial(experiment_id=best.experiment_id, overrides=best.overrides, score=best.score) if best else None
        )
        return cls(**SweepReply.of(row, trials).model_dump(), metric=sweep.metric, best=shown)


class SweepPage(BaseModel):
    items: list[SweepReply]
    next_cursor: str | None


class TrialReply(BaseModel):
    """``status`` is PRUNED for one that was stopped early because others learn faster, DELETED for one that is gone."""

    experiment_id: str
    overrides: dict[str, Any]
    status: str
    score: float | None
    eval_accuracy: float | None
    train_runtime: float | None
    error: dict[str, str | None] | None

    @classmethod
    def of(cls, trial: TrialRow) -> TrialReply:
        row = trial.row
        failed = {"code": row.error_code, "message": row.error_message} if row and row.error_code else None
        return cls(
            experiment_id=trial.entry.experiment_id,
            overrides=trial.entry.overrides,
            status=trial.status,
            score=trial.entry.score,
            eval_accuracy=row.eval_accuracy if row else None,
            train_runtime=row.train_runtime if row else None,
            error=failed,
        )


def _assignment(key: str, values: list[Value] | str) -> str:
    """As at the shell: ``lora.r=4,8`` or ``training.learning_rate=1e-4..1e-2``."""
    return f"{key}={values if isinstance(values, str) else ','.join(json.dumps(value) for value in values)}"
