"""What makes the audit log tamper-evident: each row is sealed with a key, over its content and the seal before it.

An edit breaks the row's own seal, a deletion or a splice breaks the link of the next row. Rows cut off at the end
break nothing inside the table; the anchor file, which remembers every seal outside the database, shows them.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FIRST_LINK = "0" * 64
"""What the first row has in place of the seal before it."""


@dataclass(frozen=True)
class AuditEntry:
    """One row of the audit log. ``time`` is in Unix microseconds."""

    sequence: int
    time: int
    user_id: str | None
    role: str | None
    action: str
    target: str
    result: str
    address: str
    previous: str
    seal: str = ""

    def as_dict(self) -> dict[str, object]:
        """For people and scripts: without the seals, ``time`` in Unix seconds as in the query."""
        shown = {name: value for name, value in asdict(self).items() if name not in ("previous", "seal")}
        return {**shown, "time": self.time / 1e6}

    def sealed_with(self, key: bytes) -> str:
        """HMAC-SHA256, in hex, over the canonical JSON (sorted keys, no spaces, ASCII) of all but the seal itself."""
        content = {name: value for name, value in vars(self).items() if name != "seal"}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=repr)  # a forger may store bytes
        return hmac.digest(key, canonical.encode("ascii"), "sha256").hex()


@dataclass(frozen=True)
class AuditFinding:
    """Something that is wrong with the audit log, at the row (``sequence``) where it begins."""

    row: int
    code: str
    message: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class AnchorFile:
    """A file outside the database with one line, ``<sequence> <seal>``, for every committed row.

    It is only ever appended to, so that it can be made append-only (``chattr +a``) or shipped to another machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, sequence: int, seal: str) -> None:
        """Raises ``OSError`` when it cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, f"{sequence} {seal}\n".encode("ascii"))  # one write: lines of two writers never mix
        finally:
            os.close(descriptor)

    def read(self) -> tuple[dict[int, str], list[AuditFinding]]:
        """The first seal remembered for each row, and what is wrong with the file itself."""
        seals: dict[int, str] = {}
        findings = []
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, start=1):
            sequence, _, seal = line.partition(b" ")
            if re.fullmatch(rb"[1-9]\d{0,17}", sequence) and len(seal) == len(FIRST_LINK):
                seals.setdefault(int(sequence), seal.decode("ascii", "replace"))
            else:
                findings.append(AuditFinding(0, "anchor_damaged", f"Line {number} of {self.path} cannot be read."))
        return seals, findings


class ChainCheck:
    """Takes the rows in the order of their sequence, and collects everything that is wrong with them.

    Args:
        anchors: the seals remembered outside the database, by sequence.
    """

    def __init__(self, anchors: Mapping[int, str], key: bytes) -> None:
        self.rows = 0
        self.findings: list[AuditFinding] = []
        self._anchors = anchors
        self._key = key
        self._last = 0
        self._link = FIRST_LINK

    def check(self, entry: AuditEntry) -> None:
        """Look at the next row."""
        row = entry.sequence
        if row != self._last + 1:
            self._report_missing(self._last + 1, row - 1)
        elif entry.previous != self._link:
            self._report(row, "link_broken", "It does not follow the row before it.")
        if entry.sealed_with(self._key) != entry.seal:
            self._report(row, "row_altered", "Its content does not belong to its seal.")
        elif self._anchors.get(row, entry.seal) != entry.seal:
            self._report(row, "row_replaced", "The anchor file remembers another row in its place.")
        self.rows += 1
        self._last, self._link = row, entry.seal

    def stop(self, reason: str) -> None:
        """The database could not give the next row."""
        self._report(self._last + 1, "row_unreadable", reason)

    def finish(self) -> None:
        """There are no more rows."""
        newest = max(self._anchors, default=0)
        if self._last and not self._anchors:
            self._report(self._last, "anchor_missing", "No anchor file: rows cut off at the end would not be noticed.")
        if newest > self._last:
            self._report_missing(self._last + 1, newest)

    def _report(self, row: int, code: str, message: str) -> None:
        self.findings.append(AuditFinding(row, code, message))

    def _report_missing(self, first: int, last: int) -> None:
        rows = f"Row {first} is" if first == last else f"Rows {first} to {last} are"
        self._report(first, "rows_missing", f"{rows} missing.")
