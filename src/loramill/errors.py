"""Every error that loramill raises on purpose.

    LoramillError
    ├── ConfigError              a config, flag or override is wrong; carries every problem at once
    ├── NotFoundError            what was named does not exist
    ├── ConflictError            it exists, but its state forbids the request
    ├── PermissionDeniedError    the caller may not do this
    ├── AuthenticationError      it is not known who the caller is
    │   ├── LoginFailedError
    │   └── TokenInvalidError
    ├── RateLimitedError         too many requests; carries the seconds to wait
    │   └── OverloadedError      the machine cannot keep up
    ├── QuotaExceededError       the user has used up what one user may use
    ├── DataError                a data set cannot be used as it is
    │   ├── DatasetNotFoundError
    │   ├── EmptyDatasetError
    │   ├── MissingSplitError
    │   ├── MissingColumnError
    │   ├── LabelError
    │   ├── UnreadableDataError  a file is not what its name says, or is broken
    │   ├── DataTooLargeError    reading it would need more memory than allowed
    │   └── DataRefusedError     validation found errors and the rules say refuse
    ├── ModelError               a base model or an adapter cannot be used
    │   ├── ModelNotFoundError
    │   └── AdapterFormatError
    ├── TrainingError            a run started and could not finish
    │   ├── NonFiniteLossError
    │   ├── OutOfMemoryError
    │   ├── ReloadMismatchError
    │   ├── ResumeError
    │   ├── WorkerLostError
    │   └── TimeLimitError
    ├── PredictionError          a text cannot be classified
    │   ├── EmptyTextError
    │   ├── TextTooLongError
    │   ├── TooManyTextsError
    │   └── NonFiniteAnswerError
    ├── RequestInvalidError      the body of a request is not what it should be; carries every problem at once
    ├── RequestTooLargeError     it has more bytes than allowed
    ├── UnavailableError         the service starts or stops
    │   └── DatabaseUnavailableError
    ├── InternalError            a defect of loramill
    └── StorageError             the disk refused
        ├── DiskFullError
        ├── UnwritableError
        └── CorruptFileError

An error says what failed, where, and what to do about it (``fix``). Its ``code`` is stable: the
API sends it, scripts match on it, and ``docs/troubleshooting.md`` has an entry for each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar


class LoramillError(Exception):
    """Root of every expected error.

    Args:
        message: what failed and where, in one sentence, without secrets.
        fix: what the reader can do about it.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.audited = False  # True once the audit log holds this refusal, so that no outer layer adds it again

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        """Copied to another process as it is: the arguments of ``__init__`` differ from class to class."""
        return type(self).__new__, (type(self), *self.args), vars(self)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a config, as data."""

    key: str
    value: object
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.key}: {self.message}{hint}"

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class ConfigError(LoramillError):
    """A config is wrong. ``problems`` lists everything that is, not only the first thing."""

    code = "config_invalid"

    def __init__(self, problems: list[Problem], *, source: str = "config", fix: str = "") -> None:
        self.problems = tuple(problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{source}: {count}{lines}", fix=fix)

    def __str__(self) -> str:
        return f"{self.message}\n{self.fix}".rstrip()


class NotFoundError(LoramillError):
    code = "not_found"


class ConflictError(LoramillError):
    code = "conflict"


class PermissionDeniedError(LoramillError):
    code = "permission_denied"


class AuthenticationError(LoramillError):
    code = "not_signed_in"


class LoginFailedError(AuthenticationError):
    code = "login_failed"


class TokenInvalidError(AuthenticationError):
    code = "token_invalid"


class RateLimitedError(LoramillError):
    """Too many requests. ``retry_after`` is in whole seconds, at least 1."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int, fix: str = "") -> None:
        super().__init__(message, fix=fix or f"Try again in {retry_after} s.")
        self.retry_after = retry_after


class OverloadedError(RateLimitedError):
    code = "overloaded"


class QuotaExceededError(LoramillError):
    """A user asked for more than the quota allows. ``problems`` lists every limit that is reached."""

    code = "quota_exceeded"

    def __init__(self, problems: list[Problem], *, fix: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in problems), fix=fix)


class DataError(LoramillError):
    """Data cannot be used; ``split`` is the one at fault, where that is known."""

    code = "data_invalid"
    split = "train"


class DatasetNotFoundError(DataError):
    code = "dataset_not_found"


class EmptyDatasetError(DataError):
    code = "dataset_empty"


class MissingSplitError(DataError):
    code = "split_missing"


class MissingColumnError(DataError):
    code = "column_missing"


class LabelError(DataError):
    code = "label_invalid"


class UnreadableDataError(DataError):
    code = "data_unreadable"


class DataTooLargeError(DataError):
    code = "data_too_large"


class DataRefusedError(DataError):
    code = "data_refused"


class ModelError(LoramillError):
    code = "model_invalid"


class ModelNotFoundError(ModelError):
    code = "model_not_found"


class AdapterFormatError(ModelError):
    code = "adapter_invalid"


class TrainingError(LoramillError):
    code = "training_failed"


class NonFiniteLossError(TrainingError):
    code = "loss_not_finite"


class OutOfMemoryError(TrainingError):
    code = "out_of_memory"


class ReloadMismatchError(TrainingError):
    code = "reload_mismatch"


class ResumeError(TrainingError):
    code = "resume_impossible"


class WorkerLostError(TrainingError):
    code = "worker_lost"


class TimeLimitError(TrainingError):
    code = "time_limit"


class PredictionError(LoramillError):
    code = "prediction_failed"


class EmptyTextError(PredictionError):
    code = "text_empty"


class TextTooLongError(PredictionError):
    code = "text_too_long"


class TooManyTextsError(PredictionError):
    code = "too_many_texts"


class NonFiniteAnswerError(PredictionError):
    code = "answer_not_finite"


class RequestInvalidError(LoramillError):
    """The body of a request is wrong. ``problems`` lists every field that is."""

    code = "request_invalid"

    def __init__(self, problems: list[Problem], *, fix: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in problems), fix=fix)


class RequestTooLargeError(LoramillError):
    code = "request_too_large"


class UnavailableError(LoramillError):
    code = "unavailable"


class DatabaseUnavailableError(UnavailableError):
    code = "database_unavailable"


class InternalError(LoramillError):
    code = "internal_error"


class StorageError(LoramillError):
    code = "storage_failed"


class DiskFullError(StorageError):
    code = "disk_full"


class UnwritableError(StorageError):
    code = "folder_unwritable"


class CorruptFileError(StorageError):
    code = "file_corrupt"
