"""Texts that wait for a forward pass, and the choice of those that go together."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from loramill.inference.answers import Logits
from loramill.inference.runner import NO_LOGITS, TokenisedText
from loramill.inference.served_model import LoadedBase, ServedModel

TOKENS_PER_SECOND = 5_000
"""A pace at which the later texts of a request are taken to arrive, so that a long list does not hold up the others."""

CANDIDATE_BATCHES = 4
"""Batches' worth of waiting texts among which the oldest finds company of its own length."""


@dataclass(eq=False)
class Job:
    """The texts of one request, which all go to one version of one model.

    Attributes:
        pairs: the second text of each; ``None`` for single texts.
        arrived: seconds, of ``time.monotonic``.
        logits: of every text, once there.
        missing: texts without an answer yet.
        error: what went wrong with one of them.
    """

    model: ServedModel
    texts: Sequence[str]
    pairs: Sequence[str] | None
    arrived: float
    future: asyncio.Future[list[Logits]]
    logits: list[Logits] = field(init=False)
    missing: int = field(init=False)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.logits = [NO_LOGITS] * len(self.texts)
        self.missing = len(self.texts)


@dataclass(frozen=True, eq=False)
class WaitingText:
    """One text of a job, ready for a forward pass."""

    job: Job
    index: int
    text: TokenisedText

    @property
    def tokens(self) -> int:
        return len(self.text.token_ids)


class TextQueue:
    """Tokenised texts in the order of their turn.

    A text's turn is its arrival; the later texts of one job count as arriving one after the other. So a single text
    that comes after a list of a thousand does not wait for all of them.

    Args:
        batch_tokens: tokens of one batch; a longer text goes alone.
    """

    def __init__(self, batch_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._heap: list[tuple[float, int, WaitingText]] = []
        self._pushed = 0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def is_full(self) -> bool:
        """Whether a whole batch is there."""
        return self.tokens >= self._batch_tokens

    @property
    def oldest_arrival(self) -> float:
        return self._heap[0][2].job.arrived

    def push(self, job: Job, texts: Sequence[TokenisedText]) -> None:
        """Add every text of a job."""
        turn = job.arrived
        for index, text in enumerate(texts):
            self._put(turn, WaitingText(job, index, text))
            turn += len(text.token_ids) / TOKENS_PER_SECOND

    def take(self, sharers: int) -> list[WaitingText]:
        """The texts of the next batch: the first in turn, and others on its base.

        Args:
            sharers: workers without work, the caller among them, that what waits is divided between.
        """
        base = self._heap[0][2].text.model.base
        candidates = self._candidates(base)
        limit = min(self._batch_tokens, -(-sum(waiting.tokens for _, waiting in candidates) // sharers))
        taken = _of_similar_length([waiting for _, waiting in candidates], limit)
        chosen = set(map(id, taken))
        for turn, waiting in candidates:
            if id(waiting) not in chosen:
                self._put(turn, waiting)
        return taken

    def _candidates(self, base: LoadedBase) -> list[tuple[float, WaitingText]]:
        """The next texts on a base, with their turns; they leave the queue."""
        found: list[tuple[float, WaitingText]] = []
        others: list[tuple[float, WaitingText]] = []
        tokens = 0
        while self._heap and tokens < CANDIDATE_BATCHES * self._batch_tokens:
            turn, _, waiting = heapq.heappop(self._heap)
            self.tokens -= waiting.tokens
            if waiting.text.model.base is base:
                found.append((turn, waiting))
                tokens += waiting.tokens
            else:
                others.append((turn, waiting))
        for turn, waiting in others:
            self._put(turn, waiting)
        return found

    def _put(self, turn: float, waiting: WaitingText) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (turn, self._pushed, waiting))
        self.tokens += waiting.tokens


def _of_similar_length(candidates: Sequence[WaitingText], limit: int) -> list[WaitingText]:
    """The first candidate and its neighbours by length, up to about ``limit`` tokens."""
    if sum(waiting.tokens for waiting in candidates) <= limit:
        return list(candidates)
    ordered = sorted(candidates, key=lambda waiting: waiting.tokens)
    low = ordered.index(candidates[0])
    high = low + 1
    tokens = candidates[0].tokens
    target = candidates[0].tokens
    while True:
        below = target - ordered[low - 1].tokens if low else None
        above = ordered[high].tokens - target if high < len(ordered) else None
        goes_down = below is not None and (above is None or below <= above)
        if not goes_down and above is None:
            break
        added = ordered[low - 1] if goes_down else ordered[high]
        if tokens + added.tokens > limit:
            break
        tokens += added.tokens
        low, high = (low - 1, high) if goes_down else (low, high + 1)
    return ordered[low:high]
