from __future__ import annotations

import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramill.auth.audit_chain import FIRST_LINK, AnchorFile, AuditEntry, AuditFinding, ChainCheck

KEY = b"sealing key"


def chain(length: int, key: bytes = KEY) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for sequence in range(1, length + 1):
        link = entries[-1].seal if entries else FIRST_LINK
        entry = AuditEntry(
            sequence, 1_700_000_000_000_000, "u1", "user", "job.submit", f"job {sequence}", "ok", "", link
        )
        entries.append(replace(entry, seal=entry.sealed_with(key)))
    return entries


def check(entries: list[AuditEntry], anchors: dict[int, str] | None = None, key: bytes = KEY) -> list[AuditFinding]:
    checker = ChainCheck(anchors if anchors is not None else {entry.sequence: entry.seal for entry in entries}, key)
    for entry in entries:
        checker.check(entry)
    checker.finish()
    assert checker.rows == len(entries)
    return checker.findings


def places(findings: list[AuditFinding]) -> list[tuple[int, str]]:
    return [(finding.row, finding.code) for finding in findings]


def test_an_untouched_chain_has_no_findings() -> None:
    assert check(chain(20)) == []
    assert check([]) == []


def test_the_seal_is_the_documented_one() -> None:
    """Worked out with ``openssl dgst -sha256 -hmac key`` over the canonical JSON."""
    entry = AuditEntry(1, 1_700_000_000_123_456, None, None, "login", "密", "login_failed", "10.0.0.9", FIRST_LINK)
    assert entry.sealed_with(b"key") == "1b2d0a6bf2450a0dd867bb26ca7b884d10b7681230b7a3e54e07268761cc8fb3"


def test_each_fault_is_named_with_its_row() -> None:
    good = chain(6)
    edited = [*good[:2], replace(good[2], target="job 99"), *good[3:]]
    deleted = [*good[:2], *good[4:]]
    relinked = replace(good[3], previous=good[0].seal)
    relinked = replace(relinked, seal=relinked.sealed_with(KEY))
    anchors = {entry.sequence: entry.seal for entry in good}
    assert places(check(edited)) == [(3, "row_altered")]
    assert places(check(deleted)) == [(3, "rows_missing")]
    assert places(check([*good[:3], relinked, *good[4:]], anchors)) == [
        (4, "link_broken"),
        (4, "row_replaced"),
        (5, "link_broken"),
    ]
    assert places(check(good[:4], anchors)) == [(5, "rows_missing")]
    assert places(check([], anchors)) == [(1, "rows_missing")]
    assert places(check(good, {})) == [(6, "anchor_missing")]


def test_a_tail_that_is_written_anew_with_the_right_key_is_found_by_the_anchor() -> None:
    original = chain(6)
    anchors = {entry.sequence: entry.seal for entry in original}
    forged = replace(original[3], target="nothing to see")
    forged = replace(forged, seal=forged.sealed_with(KEY))
    assert (4, "row_replaced") in places(check([*original[:3], forged], anchors))


def test_another_key_fits_no_row() -> None:
    assert places(check(chain(3), key=b"another")) == [(1, "row_altered"), (2, "row_altered"), (3, "row_altered")]


def test_rows_committed_after_the_last_anchor_are_fine() -> None:
    entries = chain(5)
    assert check(entries, {1: entries[0].seal, 3: entries[2].seal}) == []


VALUES = st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary())


@given(
    st.sampled_from(["time", "user_id", "role", "action", "target", "result", "address", "seal", "previous"]), VALUES
)
def test_any_value_in_any_column_that_was_not_there_is_found(column: str, value: object) -> None:
    entries = chain(3)
    if value != getattr(entries[1], column):
        forged = replace(entries[1], **{column: value})
        anchors = {entry.sequence: entry.seal for entry in entries}
        assert 2 in [finding.row for finding in check([entries[0], forged, entries[2]], anchors)]


def test_the_anchor_file_remembers_and_never_forgets(tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path / "new folder" / "audit.anchor")
    assert anchor.read() == ({}, [])
    anchor.append(1, "a" * 64)
    anchor.append(2, "b" * 64)
    anchor.append(2, "c" * 64)
    assert anchor.read() == ({1: "a" * 64, 2: "b" * 64}, [])
    if os.name == "posix":
        assert stat.S_IMODE(anchor.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line", [b"junk", b"2", b"x " + b"a" * 64, b"2 short", b"\xff\xfe", b"9" * 5000 + b" " + b"a" * 64]
)
def test_a_damaged_anchor_line_is_a_finding(line: bytes, tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path / "audit.anchor")
    anchor.append(1, "a" * 64)
    with anchor.path.open("ab") as file:
        file.write(line + b"\n")
    anchor.append(3, "c" * 64)
    seals, findings = anchor.read()
    assert seals == {1: "a" * 64, 3: "c" * 64}
    assert [(finding.code, "Line 2" in finding.message) for finding in findings] == [("anchor_damaged", True)]


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.anchor"

    def write(first: int) -> None:
        for sequence in range(first, first + 200):
            AnchorFile(path).append(sequence, "d" * 64)

    threads = [threading.Thread(target=write, args=(first,)) for first in range(1, 1601, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seals, findings = AnchorFile(path).read()
    assert sorted(seals) == [*range(1, 1601)]
    assert findings == []
