"""What a rule is: a named question to every row, a severity, a fix, and what cleaning does about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from loramill.data.findings import Severity

if TYPE_CHECKING:
    import pyarrow as pa

Cleaning = Literal["drop", "repair", "keep"]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TextRule:
    """A rule that looks at one text at a time.

    Attributes:
        code: stable name of the rule.
        fix: what to do about it.
        find: texts -> whether each is at fault ``[rows]``; a null text is at fault only for ``text_missing``.
        pattern: RE2 expression that finds the place of the fault, for the excerpt.
        repair: texts -> repaired texts; cleaning then repairs.
        drops: cleaning drops rows at fault.
    """

    code: str
    severity: Severity
    fix: str
    find: Callable[[pa.LargeStringArray], Mask]
    pattern: str | None = None
    repair: Callable[[pa.LargeStringArray], pa.LargeStringArray] | None = None
    drops: bool = False

    @property
    def cleaning(self) -> Cleaning:
        if self.repair is not None:
            return "repair"
        return "drop" if self.drops else "keep"


@dataclass(frozen=True)
class Hits:
    """What one rule found in one split, before it becomes findings.

    Attributes:
        rows: positions within the split ``[hits]``; ``None`` when the split as a whole is at fault.
        excerpt_of: number of a hit -> what to show for it.
        cleaning: what cleaning does with these rows.
    """

    code: str
    severity: Severity
    split: str
    column: str | None
    fix: str
    rows: NDArray[np.int64] | None
    excerpt_of: Callable[[int], str]
    cleaning: Cleaning = "keep"

    @property
    def count(self) -> int:
        return 1 if self.rows is None else len(self.rows)


def whole_split(code: str, severity: Severity, split: str, column: str | None, excerpt: str, fix: str) -> Hits:
    """A fault of a split as a whole, such as a class that it lacks."""
    return Hits(code, severity, split, column, fix, rows=None, excerpt_of=lambda _: excerpt)
