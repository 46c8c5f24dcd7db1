"""Cleaning changes what the rules name, writes every change down, and touches nothing else."""

from __future__ import annotations

from data_rows import MakeRows, clean_texts
from loramill.config.schema import ValidationRules
from loramill.data.cleaning import Cleaned, clean
from loramill.data.validator import DataValidator

REPAIRED = {
    "html_tags": ("A <b>bold</b> claim<br/>in two lines of text", "A  bold  claim in two lines of text"),
    "html_entities": ("Salt &amp; pepper &#183; nothing else", "Salt & pepper · nothing else"),
    "mojibake": ("A film full of clichÃ©s, from end to end", "A film full of clichés, from end to end"),
    "nul_character": ("Something cut\x00 in the middle", "Something cut in the middle"),
    "control_character": ("The bell \x07 rings and rings", "The bell   rings and rings"),
    "carriage_return": ("First half of it\r\nand the second", "First half of it\nand the second"),
    "invisible_character": ("The name\u200b is \u202enot what it seems", "The name is not what it seems"),
    "outer_whitespace": ("  Indented for no reason \u3000", "Indented for no reason"),
}
DROPPED = {
    "text_missing": None,
    "text_empty": "  ",
    "text_too_short": "x",
    "text_placeholder": "N/A",
    "text_only_links": "https://example.org",
}


def with_planted(make_rows: MakeRows, planted: dict[str, str | None], name: str = "train") -> Cleaned:
    texts: list[str | None] = [*clean_texts(30), *planted.values()]
    return clean({name: make_rows(texts, name=name)}, ValidationRules(min_text_length=2))


def test_what_can_be_repaired_is_repaired_and_listed(make_rows: MakeRows) -> None:
    cleaned = with_planted(make_rows, {code: before for code, (before, _) in REPAIRED.items()})
    assert cleaned.splits["train"].texts.to_pylist()[30:] == [after for _, after in REPAIRED.values()]
    listed = {change.code: (change.row, change.action) for change in cleaned.changes}
    assert listed == {code: (30 + number, "repaired") for number, code in enumerate(REPAIRED)}
    assert cleaned.summary == {f"{code} repaired": 1 for code in sorted(REPAIRED)}


def test_what_cannot_be_repaired_is_dropped_and_listed(make_rows: MakeRows) -> None:
    cleaned = with_planted(make_rows, DROPPED)
    assert cleaned.splits["train"].texts.to_pylist() == clean_texts(30)
    assert [(change.code, change.row, change.action) for change in cleaned.changes] == [
        (code, 30 + number, "dropped") for number, code in enumerate(DROPPED)
    ]


def test_clean_rows_stay_byte_for_byte(make_rows: MakeRows) -> None:
    rows = make_rows([*clean_texts(30), "naïve « passé » I <3 it, AT&T; 好看"])
    cleaned = clean({"train": rows})
    assert cleaned.changes == ()
    assert cleaned.splits["train"].texts.equals(rows.texts)


def test_of_copies_one_stays_and_of_contradictions_none(make_rows: MakeRows) -> None:
    texts = clean_texts(20)
    texts[10], texts[12], texts[14] = texts[0], texts[0], texts[1]
    labels = ["a", "b"] * 10
    labels[14] = "a"
    cleaned = clean({"train": make_rows(texts, labels)})
    assert [(change.row, change.code) for change in cleaned.changes] == [
        (1, "label_conflict"),
        (14, "label_conflict"),
        (10, "duplicate_exact"),
        (12, "duplicate_exact"),
    ]


def test_what_leaks_leaves_training_and_evaluation_stays_as_it_is(make_rows: MakeRows) -> None:
    train, evaluation = clean_texts(20), clean_texts(12, seed=2)
    evaluation[3], evaluation[4] = train[7], evaluation[5]
    splits = {"train": make_rows(train), "validation": make_rows(evaluation, name="validation")}
    cleaned = clean(splits)
    assert [(change.split, change.row, change.code) for change in cleaned.changes] == [("train", 7, "leak_exact")]
    assert cleaned.splits["validation"].texts.to_pylist() == evaluation
    assert 7 not in cleaned.splits["train"].row_ids


def test_spellings_of_a_label_become_one(make_rows: MakeRows) -> None:
    labels = ["good", "bad"] * 10
    labels[4], labels[7] = "Good", "BAD"
    cleaned = clean({"train": make_rows(clean_texts(20), labels)})
    assert cleaned.splits["train"].labels.to_pylist() == ["good", "bad"] * 10
    assert {(change.row, change.before, change.after) for change in cleaned.changes} == {
        (4, "Good", "good"),
        (7, "BAD", "bad"),
    }


def test_spellings_in_lists_of_labels_become_one(make_rows: MakeRows) -> None:
    labels: list[object] = [["good", "long"], ["bad"], []] * 6
    labels[3], labels[4] = ["Good", "good", "long"], ["BAD"]
    cleaned = clean({"train": make_rows(clean_texts(18), labels)})
    assert cleaned.splits["train"].labels.to_pylist() == [["good", "long"], ["bad"], []] * 6
    assert {(change.row, change.before, change.after) for change in cleaned.changes} == {
        (3, "['Good', 'good', 'long']", "['good', 'long']"),
        (4, "['BAD']", "['bad']"),
    }


def test_labels_of_signs_alone_stay_apart(make_rows: MakeRows) -> None:
    labels = ["-", "_"] * 10
    assert clean({"train": make_rows(clean_texts(20), labels)}).splits["train"].labels.to_pylist() == labels


def test_all_splits_have_the_spelling_of_the_training_rows(make_rows: MakeRows) -> None:
    train, validation = ["good", "bad"] * 10, ["GOOD", "BAD"] * 10
    train[4] = "GOOD"
    splits = {
        "validation": make_rows(clean_texts(20, seed=2), validation, name="validation"),
        "train": make_rows(clean_texts(20), train),
    }
    assert {finding.code for finding in DataValidator().validate(splits).findings if finding.severity == "error"} == {
        "label_spelling"
    }
    cleaned = clean(splits)
    for rows in cleaned.splits.values():
        assert rows.labels.to_pylist() == ["good", "bad"] * 10
    assert cleaned.summary == {"label_spelling repaired": 21}


def test_several_rules_for_labels_drop_the_rows_that_they_found(make_rows: MakeRows) -> None:
    texts = clean_texts(60)
    labels: list[object] = ["1", "2", "3"] * 20
    labels[5], labels[9], texts[20] = None, "nan", "text"
    labels[20] = "label"
    cleaned = clean({"train": make_rows(texts, labels)})
    assert {(change.row, change.code) for change in cleaned.changes} == {
        (5, "label_missing"),
        (9, "label_not_a_number"),
        (20, "header_in_rows"),
    }
    assert cleaned.splits["train"].row_ids.tolist() == [row for row in range(60) if row not in (5, 9, 20)]


def test_rows_without_a_label_are_dropped_under_their_own_numbers(make_rows: MakeRows) -> None:
    texts = clean_texts(20)
    texts[2] = ""
    labels: list[object] = ["a", "b"] * 10
    labels[9] = None
    cleaned = clean({"train": make_rows(texts, labels)})
    assert [(change.row, change.code) for change in cleaned.changes] == [(2, "text_empty"), (9, "label_missing")]
    assert cleaned.splits["train"].row_ids.tolist() == [row for row in range(20) if row not in (2, 9)]


def test_what_was_cleaned_is_clean(make_rows: MakeRows) -> None:
    planted = {**{code: before for code, (before, _) in REPAIRED.items()}, **DROPPED}
    texts: list[str | None] = [*clean_texts(60), *planted.values(), clean_texts(60)[0]]
    labels: list[object] = ["a", "b"] * (len(texts) // 2)
    rows = make_rows(texts, labels[: len(texts)])
    rules = ValidationRules(min_text_length=2)
    cleaned = clean({"train": rows}, rules)
    again = DataValidator(rules).validate(cleaned.splits)
    assert not again.has_errors
    assert {finding.code for finding in again.findings} <= {"label_imbalance"}
    assert clean(cleaned.splits, rules).changes == ()


def test_pairs_are_cleaned_on_both_sides(make_rows: MakeRows) -> None:
    texts, pairs = clean_texts(10), clean_texts(10, seed=2)
    texts[1], pairs[2], pairs[3] = "This &amp; that", "These &amp; those", ""
    cleaned = clean({"train": make_rows(texts, pairs=pairs)})
    assert [(change.row, change.column, change.action) for change in cleaned.changes] == [
        (1, "text", "repaired"),
        (2, "text_pair", "repaired"),
        (3, "text_pair", "dropped"),
    ]
