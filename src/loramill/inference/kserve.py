"""The Open Inference Protocol (KServe v2): its JSON, to and from texts and logits.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from loramill.errors import Problem, RequestInvalidError
from loramill.inference.predictor import Prediction
from loramill.inference.schemas import TEXT
from loramill.inference.served_model import ServedModel

Tensor = dict[str, Any]

BINARY_HEADER = "inference-header-content-length"
"""Comes with a body of the extension for binary tensors, which this service has not: JSON, then bytes."""


class InputTensor(BaseModel):
    name: Literal["text", "text_pair"]
    shape: list[int]
    datatype: Literal["BYTES"]
    data: list[StrictStr] | list[tuple[StrictStr]]
    parameters: dict[str, Any] | None = None


class WantedOutput(BaseModel):
    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    id: str | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=2)
    outputs: list[WantedOutput] | None = None
    parameters: dict[str, Any] | None = None

    model_config = ConfigDict(
        json_schema_extra={"example": {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}}
    )


def read_inputs(request: InferRequest) -> tuple[list[str], list[str] | None]:
    """Texts and second texts.

    Raises:
        RequestInvalidError: no tensor ``text``, or a shape that does not fit the data.
    """
    tensors = {tensor.name: tensor for tensor in request.inputs}
    problems = [
        Problem(f"inputs.{tensor.name}.shape", tensor.shape, f"the data has {len(tensor.data)} elements")
        for tensor in request.inputs
        if _elements(tensor.shape) != len(tensor.data)
    ]
    if "text" not in tensors:
        problems.append(Problem("inputs", list(tensors), "there must be a tensor 'text'"))
    if len(tensors) < len(request.inputs):
        problems.append(Problem("inputs", None, "two tensors have the same name"))
    if problems:
        raise RequestInvalidError(problems)
    return _texts(tensors["text"]), _texts(tensors["text_pair"]) if "text_pair" in tensors else None


def binary_refused() -> RequestInvalidError:
    """What a body with binary tensors is told."""
    return RequestInvalidError(
        [Problem("body", None, "binary tensor data is not taken")],
        fix="Send the texts as JSON, in `data` of the tensor; with tritonclient: binary_data=False.",
    )


def error_member(path: str, said: str) -> dict[str, str]:
    """What a problem has besides where this protocol is spoken: its clients read and show nothing else of it."""
    return {"error": said} if path.startswith("/v2/") else {}


def infer_reply(request: InferRequest, name: str, model: ServedModel, found: Sequence[Prediction]) -> dict[str, Any]:
    """The reply to ``request``, with the outputs that it wants, or all.

    Raises:
        RequestInvalidError: it wants one that there is not.
    """
    makers = _outputs(model)
    wanted = [output.name for output in request.outputs] if request.outputs else list(makers)
    unknown = [
        Problem("outputs", output, f"the model has {', '.join(makers)}") for output in wanted if output not in makers
    ]
    if unknown:
        raise RequestInvalidError(unknown)
    reply = {
        "model_name": name,
        "model_version": model.saved.version,
        "outputs": [{"name": output, **makers[output](found)} for output in wanted],
    }
    return {**reply, "id": request.id} if request.id else reply


def model_metadata(name: str, model: ServedModel) -> dict[str, Any]:
    """What a client asks before it sends anything."""
    empty: Sequence[Prediction] = ()
    outputs = []
    for output, make in _outputs(model).items():
        tensor = make(empty)
        outputs.append({"name": output, "datatype": tensor["datatype"], "shape": [-1, *tensor["shape"][1:]]})
    texts = [{"name": input_name, "datatype": "BYTES", "shape": [-1]} for input_name in ("text", "text_pair")]
    return {
        "name": name,
        "versions": [model.saved.version],
        "platform": "loramill",
        "inputs": texts,
        "outputs": outputs,
    }


def _outputs(model: ServedModel) -> Mapping[str, Callable[[Sequence[Prediction]], Tensor]]:
    """Output name -> how to make its tensor from the predictions."""
    labels, width = model.saved.labels, model.adapter.spec.labels

    def logits(found: Sequence[Prediction]) -> Tensor:
        data = [float(value) for one in found for value in one.logits]
        return {"datatype": "FP32", "shape": [len(found), width], "data": data}

    def column(datatype: str, values: Callable[[Prediction], Any]) -> Callable[[Sequence[Prediction]], Tensor]:
        return lambda found: {"datatype": datatype, "shape": [len(found)], "data": [values(one) for one in found]}

    def chosen(found: Sequence[Prediction]) -> Tensor:
        data = [int(index in one.answer.label) for one in found for index in range(width)]  # type: ignore[operator]
        return {"datatype": "INT64", "shape": [len(found), width], "data": data}

    if labels.problem_type == "regression":
        return {"value": column("FP32", lambda one: one.answer.label), "logits": logits}
    if labels.problem_type == "multi_label_classification":
        return {"label": chosen, "logits": logits}
    return {
        "label": column("INT64", lambda one: one.answer.label),
        "label_name": column("BYTES", lambda one: one.answer.label_name),
        "probability": column("FP32", lambda one: one.answer.probability),
        "logits": logits,
    }


def _texts(tensor: InputTensor) -> list[str]:
    return [text if isinstance(text, str) else text[0] for text in tensor.data]


def _elements(shape: Sequence[int]) -> int:
    """Elements of a list of texts: ``[n]``, or ``[n, 1]`` as some clients send it."""
    if len(shape) == 2 and shape[1] == 1:
        return shape[0]
    return shape[0] if len(shape) == 1 else -1
