"""A form for a config, made from the schema: a field for every key, with its text and its limits."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import streamlit as st
from markupsafe import Markup
from pydantic.fields import FieldInfo

from loramill.config.keys import iter_keys, set_key
from loramill.config.schema import ExperimentConfig
from loramill.ui.plain import isolated, visible
from loramill.ui.texts import has_text, t

FIELDS: dict[str, FieldInfo] = dict(iter_keys(ExperimentConfig))
ESSENTIAL = (
    "experiment_name",
    "data.dataset_name",
    "model.name",
    "training.num_train_epochs",
    "training.learning_rate",
    "training.per_device_train_batch_size",
    "lora.r",
    "lora.lora_alpha",
)
FIRST_PRESET = "quickstart"
"""What a form starts from: it works without a network."""

SECTIONS = ("data", "model", "lora", "training", "system")
AUTO = "auto"
WORDS = {"true": True, "false": False}
STEPS = {"training.learning_rate": 1e-4, "training.num_train_epochs": 0.5, "lora.lora_alpha": 1.0}
FRACTION_STEP = 0.05

EMPTIED = 3
"""So many required fields at once are emptied by Streamlit, when one comes to the page, and never by a person."""

EXACT = 2**53
"""Below it ``1.0`` is written as ``1``; above it, the digits of a float would be made up."""

Problems = Mapping[str, str]


def state_key(key: str) -> str:
    return f"form.{key}"


def defaults() -> dict[str, Any]:
    """Dotted key -> the schema's own default."""
    return {key: field.get_default(call_default_factory=True) for key, field in FIELDS.items()}


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, for the keys that the form has."""
    flat: dict[str, Any] = {}
    for key in FIELDS:
        node: Any = tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        flat[key] = node
    return flat


def as_tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """The config that these values say; only what may be absent is left out, so that the check finds the rest."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        if value is not None or is_required(key):
            set_key(tree, key, value)
    return tree


def fill(values: Mapping[str, Any]) -> None:
    """Show these values; before the fields are drawn."""
    for key, value in values.items():
        st.session_state[state_key(key)] = _to_widget(key, value)


def show_again() -> None:
    """Have the browser take every value anew: a run that was cut short may have kept them from it."""
    for key in FIELDS:
        name = state_key(key)
        if name in st.session_state:
            st.session_state[name] = st.session_state[name]


def lost_values(form: Mapping[str, Any]) -> dict[str, Any]:
    """What to fill in again where Streamlit has emptied the fields; what somebody wrote meanwhile stays.

    Args:
        form: dotted key -> value as the form was left.
    """
    shown = {key: st.session_state.get(state_key(key)) for key in FIELDS}
    had = [key for key in FIELDS if is_required(key) and form.get(key) not in (None, "")]
    emptied = [key for key in had if shown[key] in (None, "")]
    if len(emptied) < EMPTIED:
        return {}
    return {key: value for key, value in form.items() if not shown[key] or _options(key) is not None}


def draw_field(key: str, problems: Problems, suggestions: list[str] | None = None) -> None:
    """One key with what is wrong with it below."""
    name = state_key(key)
    label, about = name_key(key), f"{about_key(key)}  \n`{key}`"
    if suggestions is not None:
        _choose_or_type(name, label, about, suggestions)
    else:
        _by_type(key, name, label, about)
    if key in problems:
        st.html(Markup('<div class="lm-field" role="alert">{}</div>').format(isolated(problems[key])))


def name_key(key: str) -> str:
    text = f"field.{key}"
    return t(text) if has_text(text) else key.rpartition(".")[2].replace("_", " ")


def about_key(key: str) -> str:
    """What a key does: the schema says it in English."""
    text = f"about.{key}"
    return t(text) if has_text(text) else FIELDS[key].description or ""


def is_required(key: str) -> bool:
    return type(None) not in _kinds(FIELDS[key].annotation)


def is_emptied(key: str, values: Mapping[str, Any]) -> bool:
    """Whether it is a field with nothing in it that has to say something."""
    return key in FIELDS and is_required(key) and values.get(key) is None


def is_switch(key: str) -> bool:
    """Whether a key is a switch: those stand together, since a row of them is lower than one of fields."""
    return _kinds(FIELDS[key].annotation) == {bool}


def read_values() -> dict[str, Any]:
    """Dotted key -> value as the fields have it."""
    return {key: _from_widget(key, st.session_state.get(state_key(key))) for key in FIELDS}


def _by_type(key: str, name: str, label: str, about: str) -> None:
    kinds = _kinds(FIELDS[key].annotation)
    options = _options(key)
    if options is not None and list in kinds:
        st.multiselect(label, options, key=name, help=about, placeholder=t("form.none"))
    elif options is not None:
        st.selectbox(label, options, key=name, help=about, format_func=_shown_option)
    elif bool in kinds:
        st.toggle(label, key=name, help=about)
    elif int in kinds or float in kinds:
        _number(key, name, label, about, whole=float not in kinds)
    else:
        placeholder = None if is_required(key) else t("form.absent")
        st.text_input(label, key=name, help=about, placeholder=placeholder)


def _number(key: str, name: str, label: str, about: str, *, whole: bool) -> None:
    """Without limits: a browser keeps a number beyond them to itself, and the run would start with the one before."""
    step: dict[str, Any] = {"step": 1} if whole else {"step": STEPS.get(key, FRACTION_STEP), "format": "%g"}
    placeholder = None if is_required(key) else t("form.absent")
    st.number_input(label, key=name, help=about, value=None, placeholder=placeholder, **step)


def _choose_or_type(name: str, label: str, about: str, suggestions: list[str]) -> None:
    now = st.session_state.get(name)
    options = suggestions if now in suggestions or not now else [now, *suggestions]
    st.selectbox(
        label, options, key=name, help=about, accept_new_options=True, index=None,
        placeholder=t("form.choose_or_type"), format_func=lambda option: visible(option, 200),
    )  # fmt: skip


def _shown_option(option: str) -> str:
    return t(f"option.{option}") if option in (AUTO, *WORDS) else option


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that an annotation allows; ``Literal`` and ``list`` stand for themselves."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return {kind for member in get_args(annotation) for kind in _kinds(member)}
    return {origin or annotation}


def _options(key: str) -> list[str] | None:
    """What a key may be, where that is a list of words."""
    annotation = FIELDS[key].annotation
    kinds = _kinds(annotation)
    if kinds == {list}:
        return [str(option) for option in get_args(get_args(annotation)[0])]
    if kinds == {Literal}:
        return [str(option) for option in get_args(annotation)]
    return [AUTO, *WORDS] if kinds == {Literal, bool} else None


def _to_widget(key: str, value: Any) -> Any:
    kinds = _kinds(FIELDS[key].annotation)
    if kinds == {Literal, bool}:
        return str(value).lower()
    if list in kinds and isinstance(value, list) and _options(key) is None:
        return ", ".join(map(str, value))
    if float in kinds and value is not None:
        return float(value)
    return value


def _from_widget(key: str, shown: Any) -> Any:
    kinds = _kinds(FIELDS[key].annotation)
    if kinds == {Literal, bool}:
        return WORDS.get(shown, AUTO)
    if list in kinds and _options(key) is None:
        return _read_list(shown or "", absent=AUTO if Literal in kinds else None)
    if isinstance(shown, float) and shown.is_integer() and abs(shown) < EXACT:
        return int(shown)
    return None if shown == "" else shown


def _read_list(text: str, *, absent: str | None) -> list[str | int] | str | None:
    """Words and whole numbers between commas."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts in ([], [AUTO]):
        return absent
    return [int(part) if part.isdecimal() else part for part in parts]
