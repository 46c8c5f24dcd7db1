"""The guide's table of rules is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path

from loramill.data.findings import SEVERITIES

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "data.md"
SOURCE = Path(__file__).parents[2] / "src" / "loramill" / "data"


def codes_in_the_guide() -> dict[str, str]:
    table = GUIDE.read_text(encoding="utf-8").split("<!-- rules")[1].split("<!-- end of rules -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", table, flags=re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return dict(rows)


def codes_in_the_code() -> dict[str, set[str]]:
    """Code -> severities, from every place where a rule, a hit or a finding is made."""
    made: dict[str, set[str]] = {}
    pattern = re.compile(r'"([a-z][a-z_0-9]+)",\s*(?:"(error|warning|info)"|(?:html_)?severity|rule\.severity)')
    for path in SOURCE.rglob("*.py"):
        for code, severity in pattern.findall(path.read_text(encoding="utf-8")):
            made.setdefault(code, set()).update({severity} - {""})
    return {code: severities for code, severities in made.items() if code not in SEVERITIES}


def test_every_rule_is_in_the_guide_and_every_code_of_the_guide_is_a_rule() -> None:
    made = codes_in_the_code()
    assert len(made) > 45
    assert set(codes_in_the_guide()) == set(made)


def test_severities_in_the_guide_are_those_of_the_code() -> None:
    made = codes_in_the_code()
    for code, written in codes_in_the_guide().items():
        assert made[code] <= set(written.split(", ")), code
