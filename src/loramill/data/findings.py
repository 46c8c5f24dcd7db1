"""What validation found, as data: one ``Finding`` a fault, one ``ValidationReport`` a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The gravest first."""

BALANCED_BELOW = 1.5
"""Largest class over smallest class: from this ratio on a data set no longer counts as balanced."""


MAX_EXCERPT = 80


def excerpt(text: str) -> str:
    """At most ``MAX_EXCERPT`` characters of a text, on one line."""
    shown = text[: MAX_EXCERPT + 1].translate(dict.fromkeys((*range(32), *range(127, 160)), " "))
    return shown if len(shown) <= MAX_EXCERPT else f"{shown[: MAX_EXCERPT - 1]}…"


@dataclass(frozen=True)
class Finding:
    """One fault in one place.

    Attributes:
        code: stable name of the rule, such as ``text_empty``.
        severity: ``error`` spoils a run, ``warning`` may, ``info`` is worth knowing.
        row: 0-based row in the source split; ``None`` when the whole split or data set is meant.
        column: column of the source; ``None`` when no single column is at fault.
        excerpt: at most 80 characters of what was found.
        fix: what to do about it.
        split: the split that holds the row.
    """

    code: str
    severity: Severity
    row: int | None
    column: str | None
    excerpt: str
    fix: str
    split: str = "train"

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class ValidationReport:
    """Statistics and findings of a data set.

    Attributes:
        total_samples: rows of all splits.
        label_counts: label as the source writes it -> rows; empty for regression.
        findings: at most a fixed number for each rule; ``finding_counts`` has the whole number.
    """

    total_samples: int
    label_counts: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    finding_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def imbalance_ratio(self) -> float:
        """Rows of the largest class over rows of the smallest, rounded to 2 digits; 1.0 without classes."""
        counts = [count for count in self.label_counts.values() if count]
        return round(max(counts) / min(counts), 2) if counts else 1.0

    @property
    def is_balanced(self) -> bool:
        return self.imbalance_ratio < BALANCED_BELOW

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def examples(self, for_each: int) -> list[Finding]:
        """The first findings of each rule, errors first."""
        seen: Counter[str] = Counter()
        chosen = []
        for finding in self.findings:
            seen[finding.code] += 1
            if seen[finding.code] <= for_each:
                chosen.append(finding)
        return chosen

    def severity_of(self, code: str) -> Severity:
        """The gravest severity among the findings of a rule."""
        severities = {finding.severity for finding in self.findings if finding.code == code}
        return min(severities, key=SEVERITIES.index)

    def as_dict(self) -> dict[str, object]:
        return {
            "total_samples": self.total_samples,
            "label_counts": dict(self.label_counts),
            "imbalance_ratio": self.imbalance_ratio,
            "is_balanced": self.is_balanced,
            "finding_counts": dict(self.finding_counts),
            "findings": [finding.as_dict() for finding in self.findings],
        }
