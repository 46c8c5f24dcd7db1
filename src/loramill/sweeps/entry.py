"""A trial of a sweep on its way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loramill.data.prepare import LabelledRows
from loramill.engine.token_rows import IntArray
from loramill.training.evaluation import Evaluation
from loramill.training.loop import TrialRun
from loramill.training.stages import RunContext, RunData


@dataclass
class Entry:
    """One trial with its rows and its training.

    Attributes:
        comparison: its last measure on the rows of a comparison.
        pruned_at: step after which it does not go on, since others learned faster.
    """

    context: RunContext
    data: RunData
    run: TrialRun
    comparison: Evaluation | None = None
    pruned_at: int | None = None

    @property
    def failed(self) -> bool:
        return self.run.failure is not None

    @property
    def pruned(self) -> bool:
        return self.pruned_at is not None

    def prune(self) -> None:
        """Take it out; what the comparison said of it is its measure, unless all rows were measured at this step."""
        self.pruned_at = step = self.run.trial.progress.step
        if self.comparison is not None:
            self.run.measured.setdefault(step, self.comparison)

    def data_behind(self, evaluation: Evaluation) -> RunData:
        """Its data with just the evaluation rows that a measure of it is about."""
        if evaluation is not self.comparison:
            return self.data
        rows = comparison_rows(len(self.data.eval), len(evaluation.losses))
        if rows is None:
            return self.data
        prepared = replace(self.data.prepared, eval=_take(self.data.prepared.eval, rows))
        return replace(self.data, eval=self.data.eval.take(rows), prepared=prepared)


def comparison_rows(total: int, most: int) -> IntArray | None:
    """At most ``most`` rows spread evenly over all, the same for every trial; ``None`` when that is all of them."""
    if total <= most:
        return None
    rows: IntArray = np.linspace(0, total - 1, most).astype(np.int64)
    return rows


def _take(split: LabelledRows, rows: IntArray) -> LabelledRows:
    pairs = None if split.pairs is None else [split.pairs[row] for row in rows]
    texts = [split.texts[row] for row in rows]
    return LabelledRows(texts, pairs, split.labels[rows], split.row_ids[rows], split.positions[rows])
