"""Rules for splits as a whole: what one has and another lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from loramill.data.checks.labels import is_regression
from loramill.data.checks.rule import Hits, whole_split
from loramill.data.labels import count_labels
from loramill.data.rows import SplitRows

FEW_EVALUATION_ROWS = 50
MAX_SHIFT = 0.2
MAX_NAMED = 10


def check_split_pair(train: SplitRows, evaluation: SplitRows, spellings: Mapping[str, str]) -> Iterator[Hits]:
    """Classes and shares of an evaluation split against those of the training split.

    A class under another spelling is no other class: the rule ``label_spelling`` reports it.
    """
    label, name = train.columns.label, evaluation.name
    in_train, in_evaluation = _spelled_counts(train, spellings), _spelled_counts(evaluation, spellings)
    if not in_train or not in_evaluation or is_regression(in_train):
        return
    unseen = [label for label in in_evaluation if label not in in_train]
    if unseen:
        fix = "Add training rows of these classes, or take them out of the evaluation."
        yield whole_split(
            "label_unseen", "error", name, label, f"not in training: {', '.join(unseen[:MAX_NAMED])}", fix
        )
    absent = [label for label in in_train if label not in in_evaluation]
    if absent:
        fix = "Add evaluation rows of these classes: nothing is measured for them now."
        shown = f"not in {name}: {', '.join(absent[:MAX_NAMED])}"
        yield whole_split("label_absent", "warning", name, label, shown, fix)
    shift = _total_variation(in_train, in_evaluation)
    if shift > MAX_SHIFT:
        fix = "Draw both splits from the same rows, or judge by macro F1."
        shown = f"shares of the classes differ by {shift:.0%} from training"
        yield whole_split("label_shift", "warning", name, label, shown, fix)
    if len(evaluation) < FEW_EVALUATION_ROWS:
        fix = "Hold out more rows: one row is worth more than a percent here."
        yield whole_split("eval_small", "info", name, None, f"{len(evaluation)} rows", fix)


def _spelled_counts(rows: SplitRows, spellings: Mapping[str, str]) -> dict[str, int]:
    counts = Counter[str]()
    for label, count in count_labels(rows.labels).items():
        counts[spellings[label]] += count
    return dict(counts)


def _total_variation(first: dict[str, int], second: dict[str, int]) -> float:
    """Half the summed difference of the classes' shares: 0 for equal distributions, 1 for disjoint ones."""
    total_first, total_second = sum(first.values()), sum(second.values())
    return (
        sum(abs(first.get(label, 0) / total_first - second.get(label, 0) / total_second) for label in {*first, *second})
        / 2
    )
