"""Rules for single texts. Each is one line of the table at the end: code, severity, fix, and what it looks for."""

from __future__ import annotations

import html.entities
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import from_numpy, strings, to_numpy
from loramill.config.schema import ValidationRules
from loramill.data.checks.rule import Mask, TextRule
from loramill.data.findings import Severity

if TYPE_CHECKING:
    from pyarrow import BooleanArray
    from pyarrow import LargeStringArray as Texts

HTML_NAMES = (
    "a|abbr|acronym|article|aside|audio|b|big|blockquote|body|br|button|canvas|caption|center|cite|code|colgroup|dd|del"
    "|details|dfn|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img"
    "|input|ins|kbd|label|legend|li|link|main|mark|marquee|meta|nav|nobr|noscript|ol|option|p|pre|q|s|samp|script|section"
    "|select|small|span|strike|strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|video|wbr"
)
"""Elements of HTML, but for those whose names people write in angle brackets themselves: ``<time>``, ``<object>``."""
HTML_TAG = rf"(?i)</?({HTML_NAMES})(\s[^<>]{{0,500}})?/?>|<!--|<!doctype"
HTML_REMOVED = rf"(?is)<(script|style)\b.*?</(script|style)\s*>|<!--.*?-->|</?({HTML_NAMES})(\s[^<>]{{0,500}})?/?>"
HTML_ENTITY = rf"&(#[0-9]{{1,7}}|#[xX][0-9a-fA-F]{{1,6}}|apos|AMP|LT|GT|QUOT|{'|'.join(html.entities.name2codepoint)});"
CONTROL = r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f\x{0080}-\x{009f}]"
INVISIBLE = r"[\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{2069}\x{feff}]"
ENCODED_TWICE = r"[\x{00c2}-\x{00f4}][\x{0080}-\x{00bf}€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|锟斤拷|烫烫烫"
"""A letter that is the first byte of a UTF-8 character, and a sign that is the second: a candidate, no proof."""
OBJECT = r'^\s*\{\s*"[^"]*"\s*:(?s:.*)\}\s*$'
ESCAPED = r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\r?\\n|\\n\s|\S\\n\S|\\t\\"
PLACEHOLDER = (
    r"(?i)^\s*([#<\[(]*\s*(n/?a|nan|none|null|nil|undefined|missing|deleted|removed|tbd|todo|no text|empty)\s*[>\])!]*"
    r"|[-_.*?#]+|lorem ipsum.*|#(ref|value|name|div/0)[!?])\s*$"
)
FORMULA = r"^=\s*[A-Za-z0-9\"'($+-]|^@[A-Z]+\(|^[+-][A-Z]{2,}[(|]"
LINKS_ONLY = r"^\s*((https?://|www\.)\S+\s*)+$"
PERSONAL = r"[\w.+-]+@[\w-]+\.[a-zA-Z]{2,}|(^|\D)1[3-9]\d{9}(\D|$)|\+\d{1,3}[ .-]?\(?\d{2,4}\)?([ .-]?\d{2,4}){2,3}"
CREDENTIAL = r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|\bsk-[A-Za-z0-9_-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY"
UNBROKEN = r"[!-~]{200}"
REPEATED = "|".join(f"\\x{ord(sign):02x}{{20}}" for sign in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0!?")
SPACE = r"[\s\pZ\x{200b}\x{feff}]"
BLANK = rf"^{SPACE}*$"
CONTENT = r"[^\s\pZ\x{200b}\x{feff}]"
OUTER_SPACE = rf"^{SPACE}|{SPACE}$"
LETTERS = r"[\pL]"


def text_rules(rules: ValidationRules) -> tuple[TextRule, ...]:
    """Every rule for single texts, in the order in which cleaning applies them."""
    return (
        *_presence_rules(rules),
        *_repair_rules(rules),
        *_length_rules(rules),
        TextRule(
            "text_placeholder", "warning", "Take the row out: it says nothing.", _matching(PLACEHOLDER), drops=True
        ),
        TextRule("text_only_links", "warning", "Take the row out.", _matching(LINKS_ONLY), LINKS_ONLY, drops=True),
        TextRule("text_without_letters", "info", "Look whether it says anything.", _without_letters),
        TextRule("text_unbroken", "warning", "Look at it: this is data, not language.", _matching(UNBROKEN), UNBROKEN),
        TextRule("text_repeated_character", "info", "Shorten the run.", _matching(REPEATED), REPEATED),
        TextRule("text_escaped", "info", "Decode the escapes when you export.", _matching(ESCAPED), ESCAPED),
        TextRule(
            "text_object",
            "warning",
            "Write the text that is in it into a column of its own.",
            _matching(OBJECT),
            OBJECT,
        ),
        TextRule("text_formula", "info", "Kept as text. Do not open it in a spreadsheet.", _matching(FORMULA), FORMULA),
        TextRule("personal_data", "info", "Mask addresses and numbers of people.", _matching(PERSONAL), PERSONAL),
        TextRule("secret_in_text", "warning", "Revoke it, and mask it here.", _matching(CREDENTIAL), CREDENTIAL),
    )


def is_html(texts: Texts) -> Mask:
    """Whether each text holds a tag of HTML."""
    return _matching(HTML_TAG)(texts)


def without_html(texts: Texts) -> Texts:
    """Texts without tags, scripts and comments, and with entities as the characters that they stand for.

    Tags that were written with entities (``&lt;br&gt;``) go, too.
    """
    return _without_tags(_each(_without_tags(texts), html.unescape))


def is_encoded_twice(texts: Texts) -> Mask:
    """Whether each text was decoded with the wrong encoding once ("clichÃ©s").

    RE2 finds candidates; ftfy, which knows what each wrong encoding looks like, decides.
    """
    found = _matching(ENCODED_TWICE)(texts)
    rows = np.flatnonzero(found)
    if len(rows):
        from ftfy.badness import is_bad

        found[rows] = [
            is_bad(text) or "锟斤拷" in text or "烫烫烫" in text for text in texts.take(from_numpy(rows)).to_pylist()
        ]
    return found


def with_encoding_repaired(texts: Texts) -> Texts:
    """Texts decoded again, where that gives back what was meant."""
    from ftfy import fix_encoding

    return _each(texts, fix_encoding)


def _presence_rules(rules: ValidationRules) -> tuple[TextRule, ...]:
    allowed = rules.allow_empty
    severity: Severity = "info" if allowed else "error"
    fix = "Take the row out." if not allowed else "Allowed by validation_rules.allow_empty."
    return (
        TextRule("text_missing", severity, fix, lambda texts: _mask(texts.is_null()), drops=not allowed),
        TextRule("text_empty", severity, fix, _matching(BLANK), drops=not allowed),
    )


def _length_rules(rules: ValidationRules) -> tuple[TextRule, ...]:
    shortest, longest = rules.min_text_length, rules.max_text_length
    too_short = f"Take it out, or lower validation_rules.min_text_length ({shortest})."
    too_long = f"Shorten it, or raise validation_rules.max_text_length ({longest})."
    return (
        TextRule("text_too_short", "warning", too_short, lambda texts: _shorter(texts, shortest), drops=True),
        TextRule("text_too_long", "warning", too_long, lambda texts: _lengths(texts) > longest, drops=True),
    )


def _repair_rules(rules: ValidationRules) -> tuple[TextRule, ...]:
    """Damage that can be repaired. Markup is worth a warning only when the rules want it removed."""
    html_severity: Severity = "info" if rules.remove_html else "warning"
    html_fix = "Removed by validation_rules.remove_html." if rules.remove_html else "Set validation_rules.remove_html."
    lost = "The character is lost: export the text again."
    return (
        TextRule("html_tags", html_severity, html_fix, is_html, HTML_TAG, without_html),
        TextRule("html_entities", "info", html_fix, _matching(HTML_ENTITY), HTML_ENTITY, without_html),
        TextRule(
            "mojibake",
            "warning",
            "Decode the file with the encoding that it was written in.",
            is_encoded_twice,
            ENCODED_TWICE,
            with_encoding_repaired,
        ),
        TextRule("replacement_character", "warning", lost, _matching("\ufffd"), "\ufffd"),
        TextRule("nul_character", "warning", "Take it out.", _matching(r"\x00"), r"\x00", _replacing(r"\x00", "")),
        TextRule("control_character", "warning", "Take it out.", _matching(CONTROL), CONTROL, _replacing(CONTROL, " ")),
        TextRule("carriage_return", "info", "Write \\n.", _matching(r"\r"), r"\r", _replacing(r"\r\n?", "\n")),
        TextRule(
            "invisible_character", "info", "Take it out.", _matching(INVISIBLE), INVISIBLE, _replacing(INVISIBLE, "")
        ),
        TextRule(
            "outer_whitespace",
            "info",
            "Strip it.",
            _has_outer_space,
            OUTER_SPACE,
            _replacing(rf"^{SPACE}+|{SPACE}+$", ""),
        ),
    )


def _without_tags(texts: Texts) -> Texts:
    return _replacing(HTML_REMOVED, " ")(texts)


def _matching(pattern: str) -> Callable[[Texts], Mask]:
    def find(texts: Texts) -> Mask:
        import pyarrow.compute as pc

        return _mask(pc.match_substring_regex(texts, pattern))

    return find


def _replacing(pattern: str, replacement: str) -> Callable[[Texts], Texts]:
    def repair(texts: Texts) -> Texts:
        import pyarrow.compute as pc

        return pc.replace_substring_regex(texts, pattern, replacement)

    return repair


def _has_outer_space(texts: Texts) -> Mask:
    """Blank texts are empty, which is another rule."""
    return _matching(OUTER_SPACE)(texts) & _matching(CONTENT)(texts)


def _without_letters(texts: Texts) -> Mask:
    return ~_matching(LETTERS)(texts) & _matching(CONTENT)(texts)


def _shorter(texts: Texts, shortest: int) -> Mask:
    return (_lengths(texts) < shortest) & _matching(CONTENT)(texts)


def _lengths(texts: Texts) -> NDArray[np.int64]:
    """Characters of each text ``[rows]``; 0 for a null."""
    import pyarrow.compute as pc

    lengths: NDArray[np.int64] = to_numpy(pc.utf8_length(texts))
    return lengths


def _each(texts: Texts, change: Callable[[str], str]) -> Texts:
    return strings([None if text is None else change(text) for text in texts.to_pylist()])


def _mask(found: BooleanArray) -> Mask:
    mask: Mask = to_numpy(found)
    return mask
