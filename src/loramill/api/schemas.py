"""What the API takes and gives, as its OpenAPI description shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from loramill.config.schema import require_storable
from loramill.experiments.filters import ExperimentFilter, through_the_day
from loramill.experiments.models import Experiment, Status
from loramill.experiments.search import MAX_LIMIT, Order

Text = Annotated[str, Field(max_length=10_000), AfterValidator(require_storable)]


def _in_a_zone(value: datetime) -> datetime:
    try:
        return value if value.tzinfo else value.astimezone()
    except (OverflowError, OSError) as error:  # the years 1 and 9999
        raise ValueError("is out of range") from error


Moment = Annotated[datetime, AfterValidator(_in_a_zone)]
"""A time; without a zone it is the service's local time, as at the shell."""

LastMoment = Annotated[
    Moment, BeforeValidator(lambda value: through_the_day(value) if isinstance(value, str) else value)
]
"""The end of a range: a plain date is the end of its day."""

Word = Annotated[str, Field(max_length=255), AfterValidator(require_storable)]


class Body(BaseModel):
    """A body or a query: what it does not know, such as ``owner`` or ``role``, is refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ProblemReply(BaseModel):
    """RFC 9457, as ``application/problem+json``."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    fix: str = ""
    errors: list[dict[str, Any]] = []


class LoginRequest(Body):
    username: Word
    password: SecretStr = Field(max_length=4096)

    model_config = ConfigDict(json_schema_extra={"example": {"username": "ada", "password": "correct horse battery"}})


class RefreshRequest(Body):
    refresh_token: Word


class TrainRequest(Body):
    config: dict[str, Any] = Field(description="The tree of `loramill config schema`; what is left out has a default.")
    priority: int = Field(0, ge=-10, le=10, description="Higher ones are looked at first.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"config": {"experiment_name": "first", "data": {"dataset_name": "sample:movie_reviews"}}}
        }
    )


class TrainReply(BaseModel):
    task_id: str
    experiment_id: str


class TaskReply(BaseModel):
    """A job. ``progress`` is its newest measurement, ``result`` its metrics once it succeeded."""

    task_id: str
    experiment_id: str
    owner: str | None
    status: Status
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested: bool
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, str | None] | None

    @classmethod
    def of(cls, row: Experiment, result: dict[str, Any] | None = None) -> TaskReply:
        failed = {"code": row.error_code, "message": row.error_message} if row.error_code else None
        known = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        known["task_id"] = row.task_id or row.id  # runs of the shell have no task of their own
        return cls(**known, experiment_id=row.id, result=result, error=failed)


class PageQuery(Body):
    """A page, newest first."""

    limit: int = Field(50, ge=1, le=1000)
    cursor: int | None = Field(None, ge=1, le=2**53, description="`next_cursor` of the page before.")


class TaskQuery(PageQuery):
    status: Status | None = None


class TaskPage(BaseModel):
    items: list[TaskReply]
    next_cursor: str | None


class CancelReply(BaseModel):
    task_id: str
    accepted: bool = Field(description="False when it had ended already.")


class ExperimentQuery(Body):
    """Filters; every one that is given must hold."""

    name: Word | None = None
    min_accuracy: float | None = Field(None, allow_inf_nan=False)
    max_runtime: float | None = Field(None, allow_inf_nan=False, description="Seconds of training.")
    start_date: Moment | None = None
    end_date: LastMoment | None = Field(None, description="A plain date includes its whole day.")
    model_name: Word | None = None
    dataset_name: Word | None = None
    status: Status | None = None
    owner: Word | None = Field(None, description="`me`, or for administrators any user's id.")
    tag: Word | None = None
    sweep_id: Word | None = None
    stage: Word | None = None
    language: Word | None = Field(None, description="Of the data, such as English.")
    task: Word | None = Field(None, description="Such as SEQ_CLS.")
    archived: bool | None = False

    def filter_for(self, user_id: str) -> ExperimentFilter:
        wanted = {name: getattr(self, name) for name in ExperimentQuery.model_fields}
        return ExperimentFilter(**{**wanted, "owner": user_id if self.owner == "me" else self.owner})


class ExperimentListQuery(ExperimentQuery):
    sort_by: Word = Field("created_at", description="created_at, name, train_runtime, eval_accuracy or any metric.")
    desc: bool = True
    limit: int = Field(50, ge=1, le=MAX_LIMIT)
    cursor: Word | None = None

    @property
    def order(self) -> Order:
        return Order(self.sort_by, self.desc)


class CompareQuery(Body):
    ids: list[Word] = Field(min_length=2, max_length=20)


class ArtifactReply(BaseModel):
    path: str
    bytes: int


class ChangeExperiment(Body):
    notes: Text | None = None
    archived: bool | None = None
    add_tags: list[Word] = Field([], max_length=100)
    remove_tags: list[Word] = Field([], max_length=100)


class StageRequest(Body):
    stage: Literal["staging", "production", "archived"] | None = Field(description="null takes it out of all.")
    reason: Text = ""


class NewUser(Body):
    username: Word
    password: SecretStr = Field(max_length=4096)
    role: Literal["user", "admin"] = "user"


class ChangePassword(Body):
    password: SecretStr = Field(max_length=4096, description="The present one.")
    new_password: SecretStr = Field(max_length=4096)


class ChangeUser(Body):
    disabled: bool | None = None
    role: Literal["user", "admin"] | None = None
    password: SecretStr | None = Field(None, max_length=4096, description="A new one, for who forgot it.")


class AuditQuery(Body):
    user_id: Word | None = None
    role: Word | None = None
    start_time: float | None = Field(None, description="Unix seconds.", allow_inf_nan=False)
    end_time: float | None = Field(None, description="Unix seconds.", allow_inf_nan=False)
    limit: int = Field(100, ge=1, le=1000)
