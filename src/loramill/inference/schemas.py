"""What the service takes and gives, as its OpenAPI description shows it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from loramill.inference.predictor import Prediction

TEXT = "A warm, funny film with a cast that never puts a foot wrong."
EXPERIMENT = "quickstart_20260131_120000"
Name = Annotated[str, Field(min_length=1, max_length=255)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class PredictRequest(Body):
    text: StrictStr | list[StrictStr | tuple[StrictStr, StrictStr]] = Field(
        description="A text, or a list of texts; an item of the list may be a pair: two texts."
    )
    text_pair: StrictStr | list[StrictStr] | None = Field(
        None, description="The second text for models of pairs; one for each text."
    )
    model: Name | None = Field(
        None,
        description="Experiment id, a name of this service, an alias or a stage of the registry; else the default.",
    )


REQUEST_EXAMPLES: dict[str, dict[str, Any]] = {
    "one text": {"value": {"text": TEXT}},
    "several texts, another model": {"value": {"text": [TEXT, "Dull from start to end."], "model": "production"}},
    "a pair": {"value": {"text": "A man plays a guitar.", "text_pair": "Somebody makes music."}},
}


class PredictReply(BaseModel):
    """The answer for one text; a list of texts gets a list of these."""

    label: int | float | list[int] = Field(
        description="The class; all classes above 0.5 of a multi-label model; or the value of a regression."
    )
    probability: float | list[float] | None = Field(description="Of the label, or of each; none for a regression.")
    latency_ms: float = Field(description="From the request to the reply, waiting included.")
    base_model: str
    language: str = Field(description="Of the model.")
    label_name: str | list[str] | None = Field(description="The label as the training data has it.")
    text_language: str = Field(description="Of the text: a guess.")
    warning: str | None = Field(description="Set when the text is in a script that the model does not know.")
    experiment_id: str
    adapter_version: str = Field(description="Hash of the model's files.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "label": 1,
                "probability": 0.9983,
                "latency_ms": 25.4,
                "base_model": "distilbert-base-uncased",
                "language": "English",
                "label_name": "positive",
                "text_language": "English",
                "warning": None,
                "experiment_id": EXPERIMENT,
                "adapter_version": "0888dd0933ee",
            }
        }
    )


def prediction_body(found: Prediction) -> dict[str, Any]:
    """The reply for one text, numbers rounded for people."""
    body = found.as_dict()
    chance = body["probability"]
    body["probability"] = [round(value, 6) for value in chance] if isinstance(chance, list) else _rounded(chance)
    return body


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


class CanaryRequest(Body):
    share: float = Field(ge=0, le=1, description="Share of the requests that this model gets; 0 ends the canary.")


class RouteReply(BaseModel):
    """Where a name leads."""

    model: str
    canary: str | None
    share: float


class ModelReply(BaseModel):
    """One model of the service."""

    experiment_id: str
    version: str
    state: Literal["memory", "disk", "failed"] = Field(
        description="disk: loaded when it is asked for; failed: its files cannot be served any more."
    )
    names: list[str] = Field(description="Names of this service that lead to it, as canary too.")
    base_model: str | None = None
    problem_type: str | None = None
    label_names: list[str] | None = None
    language: str | None = None
    bytes: int | None = Field(None, description="Memory of the adapter.")
    error: str | None = None


class ModelsReply(BaseModel):
    """Everything that is served."""

    models: list[ModelReply]
    names: dict[str, RouteReply]


class ProblemReply(BaseModel):
    """RFC 9457: what went wrong."""

    type: str
    title: str
    status: int
    code: str = Field(description="Stable; docs/troubleshooting.md has an entry for each.")
    detail: str
    fix: str | None = None
    errors: list[dict[str, Any]] | None = None
