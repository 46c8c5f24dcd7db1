"""Checks a data set by every rule and reports what it finds; nothing is changed here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loramill.arrays import or_empty
from loramill.config.schema import ValidationRules
from loramill.data.checks.duplicates import check_copies, check_leaks, check_near_copies, check_pairs
from loramill.data.checks.files import check_file_damage
from loramill.data.checks.labels import check_labels, is_regression, spellings_of
from loramill.data.checks.rule import Hits, TextRule, whole_split
from loramill.data.checks.splits import check_split_pair
from loramill.data.checks.texts import text_rules
from loramill.data.findings import SEVERITIES, Finding, Severity, ValidationReport, excerpt
from loramill.data.labels import count_labels
from loramill.data.rows import SplitRows

if TYPE_CHECKING:
    import pyarrow as pa

TokenCounter = Callable[[Sequence[str], Sequence[str] | None], NDArray[np.int64]]
"""(texts, pairs) -> tokens of each row ``[rows]``, before any truncation."""
MUCH_TRUNCATED = 0.1
MAX_CLASSES_COUNTED = 1000
"""With more classes than this the label column is no column of classes; another finding says so."""


class DataValidator:
    """Every rule, with the limits of one config.

    Args:
        rules: ``data.validation_rules``.
        max_findings: findings kept for each rule and split; their whole number is always reported.
        max_length: tokens beyond which training truncates, for the truncation rate.
        count_tokens: the base model's own tokenizer; without it the truncation rate is left out.
    """

    def __init__(
        self,
        rules: ValidationRules | None = None,
        *,
        max_findings: int = 1000,
        max_length: int | None = None,
        count_tokens: TokenCounter | None = None,
    ) -> None:
        self._text_rules = text_rules(rules or ValidationRules())
        self._max_findings = max_findings
        self._max_length = max_length
        self._count_tokens = count_tokens

    def validate(
        self, splits: Mapping[str, SplitRows], *, found_while_reading: Sequence[Finding] = ()
    ) -> ValidationReport:
        """Check every split, and the others against ``train``.

        Args:
            splits: split name -> rows; ``train`` is the one that others are compared with.
            found_while_reading: findings of the readers, reported along.
        """
        findings = list(found_while_reading)
        counts = Counter(finding.code for finding in findings)
        for hits in self.hits(splits):
            counts[hits.code] += hits.count
            findings += self._findings(hits, splits[hits.split])
        findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), finding.code, finding.split))
        labels = Counter[str]()
        for rows in splits.values():
            labels.update(count_labels(rows.labels))
        return ValidationReport(
            total_samples=sum(len(rows) for rows in splits.values()),
            label_counts={} if is_regression(labels) or len(labels) > MAX_CLASSES_COUNTED else dict(labels),
            findings=tuple(findings),
            finding_counts=dict(sorted(counts.items())),
        )

    def hits(self, splits: Mapping[str, SplitRows]) -> Iterator[Hits]:
        """What every rule finds, rule by rule."""
        spellings = spellings_of(splits)
        for rows in splits.values():
            yield from self.text_hits(rows)
            yield from check_file_damage(rows)
            yield from check_pairs(rows)
            yield from check_labels(rows, spellings)
            yield from check_copies(rows)
            yield from self._truncated(rows)
        yield from check_near_copies(splits)
        train = splits.get("train")
        for name, rows in splits.items():
            if train is not None and name != "train":
                yield from check_split_pair(train, rows, spellings)
                yield from check_leaks(train, rows)

    def text_hits(self, rows: SplitRows) -> Iterator[Hits]:
        """What the rules for single texts find in one split."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # Arrow's kernels work without the interpreter's lock
            for column, texts in rows.text_columns:
                masks = threads.map(lambda rule, texts=texts: rule.find(texts), self._text_rules)
                for rule, mask in zip(self._text_rules, masks, strict=True):
                    if mask.any():
                        yield _text_hits(rule, rows.name, column, texts, np.flatnonzero(mask).astype(np.int64))

    def _findings(self, hits: Hits, rows: SplitRows) -> list[Finding]:
        if hits.rows is None:
            shown = excerpt(hits.excerpt_of(0))
            return [Finding(hits.code, hits.severity, None, hits.column, shown, hits.fix, hits.split)]
        return [
            Finding(
                hits.code,
                hits.severity,
                int(rows.row_ids[position]),
                hits.column,
                excerpt(hits.excerpt_of(number)),
                hits.fix,
                hits.split,
            )
            for number, position in enumerate(hits.rows[: self._max_findings].tolist())
        ]

    def _truncated(self, rows: SplitRows) -> Iterator[Hits]:
        if self._count_tokens is None or self._max_length is None or not len(rows):
            return
        pairs = None if rows.pairs is None else or_empty(rows.pairs).to_pylist()
        tokens = self._count_tokens(or_empty(rows.texts).to_pylist(), pairs)
        cut = int((tokens > self._max_length).sum())
        if cut:
            severity: Severity = "warning" if cut > MUCH_TRUNCATED * len(rows) else "info"
            shown = f"{cut} of {len(rows)} texts ({cut / len(rows):.1%}) have more than {self._max_length} tokens"
            fix = f"Raise data.max_length (the longest text has {int(tokens.max())} tokens), or accept the cut."
            yield whole_split("text_truncated", severity, rows.name, rows.columns.text, shown, fix)


def _text_hits(rule: TextRule, split: str, column: str, texts: pa.LargeStringArray, found: NDArray[np.int64]) -> Hits:
    shown = _place_of_fault(rule, texts, found)
    return Hits(rule.code, rule.severity, split, column, rule.fix, found, shown, rule.cleaning)


def _place_of_fault(rule: TextRule, texts: pa.LargeStringArray, found: NDArray[np.int64]) -> Callable[[int], str]:
    """Shows a text from around the place that the rule objects to."""
    import pyarrow.compute as pc

    def excerpt_of(hit: int) -> str:
        row = int(found[hit])
        text = texts[row].as_py() or ""
        if rule.pattern is None or len(text) < 80:
            return str(text)
        at = pc.find_substring_regex(texts.slice(row, 1), rule.pattern)[0].as_py()
        start = max(0, len(text.encode()[: max(at, 0)].decode("utf-8", "replace")) - 30)
        return ("…" if start else "") + text[start:]

    return excerpt_of
