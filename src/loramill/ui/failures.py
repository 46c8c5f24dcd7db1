"""What went wrong, as something that a person can act on; never a traceback."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

import streamlit as st
from markupsafe import Markup

from loramill.api_session import ApiError
from loramill.errors import LoramillError, UnavailableError
from loramill.ui.plain import isolated
from loramill.ui.service_words import in_own_words
from loramill.ui.services import STATE
from loramill.ui.texts import has_text, t

Arguments = ParamSpec("Arguments")
LOG = logging.getLogger("loramill.ui")
ENDED = "sign_in_ended"
LOGIN_FAILED = "login_failed"
"""The one 401 that ends no sign-in: a wrong name or password."""


def show_problem(error: LoramillError) -> None:
    """What failed, every wrong field, and what to do."""
    code = error.problem_code if isinstance(error, ApiError) else error.code
    fields = getattr(error, "problems", ())
    details = [f"{name_field(str(field.get('key')))}: {in_own_words(str(field.get('message')))}" for field in fields]
    if not details and error.message != code:
        details = [in_own_words(error.message)]
    problem_box(code, details, error.fix)


def show_failed_job(error: Mapping[str, str]) -> None:
    """Why a job failed, as its record says it: the code, and a message that ends with what to do."""
    problem_box(str(error.get("code")), [in_own_words(str(error.get("message")))])


def problem_box(code: str, details: Sequence[str], fix: str = "") -> None:
    """A title and advice in the reader's language; the service's own advice where the page has none."""
    key, advice = f"error.{code}", f"todo.{code}"
    title = t(key) if has_text(key) else t("error.other")
    lines = Markup("").join(Markup("<p>{}</p>").format(isolated(line, 2000)) for line in details)
    what_to_do = t(advice) if has_text(advice) else fix.strip()
    box = Markup('<div class="lm-problem" role="alert"><b>{}</b>{}<p class="lm-todo">{}</p><small>{}</small></div>')
    st.html(box.format(title, lines, isolated(what_to_do), isolated(t("error.code", code=code))))


def name_field(key: str) -> str:
    """A field of a request as the page calls it, else by its key."""
    known = (f"{family}.{key}" for family in ("field", "quota", "sign_in"))
    return next((t(text) for text in known if has_text(text)), key)


def show_unavailable(error: UnavailableError) -> None:
    """A service that is away: what to start, and a way to try again."""
    show_problem(error)
    st.button(t("action.try_again"), icon=":material/refresh:", key="try_again")


def guarded(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A part of the page that says what went wrong in it; the rest of the page stays."""

    @functools.wraps(draw)
    def drawn(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        try:
            draw(*arguments, **options)
        except UnavailableError as error:
            show_unavailable(error)
        except ApiError as error:
            if error.status == 401 and error.problem_code != LOGIN_FAILED:
                end_sign_in()
            show_problem(error)
        except LoramillError as error:
            show_problem(error)

    return drawn


def attempt(action: Callable[[], object]) -> bool:
    """Whether an action that a button started went well; if not, why stands under the button."""
    worked = False

    @guarded
    def act() -> None:
        nonlocal worked
        action()
        worked = True

    act()
    return worked


def end_sign_in() -> None:
    """The API no longer knows this sign-in: ask for another, on the same page."""
    sign_in = st.session_state.pop(STATE, None)
    if sign_in is not None:
        sign_in.ended = True
    st.session_state[ENDED] = True
    st.rerun()


def hide_failure(error: Exception) -> bool:
    """For whatever nobody expected: the log gets it all, the reader a sentence."""
    LOG.error("The page failed", exc_info=error)
    box = Markup('<div class="lm-problem" role="alert"><b>{}</b><br>{}</div>')
    st.html(box.format(t("error.internal_error"), t("error.look_at_log")))
    return True
