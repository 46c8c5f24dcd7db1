"""Every kind of fault is planted in clean rows, and must be found under its code, in its row."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_rows import Load, MakeRows, clean_texts, write_rows
from loramill.config.schema import ValidationRules
from loramill.data.findings import Finding, ValidationReport
from loramill.data.validator import DataValidator

ROWS = 120
AT = 57
RULES = ValidationRules(min_text_length=5, max_text_length=400)

TEXT_FAULTS = {
    "text_missing": None,
    "text_empty": " \t ",
    "text_too_short": "oh",
    "text_too_long": "loma do " * 60,
    "html_tags": "A <b>bold</b> claim about <a href='x'>this</a> one.",
    "html_entities": "Salt &amp; pepper, nothing else in it.",
    "mojibake": "A film full of clichÃ©s, and naÃ¯ve to the end.",
    "replacement_character": "A caf\ufffd where nothing happens at all.",
    "nul_character": "Something cut\x00 in the middle of it.",
    "control_character": "The bell \x07 rings, the screen \x1b[31m turns red.",
    "carriage_return": "First half of it\r\nsecond half of it.",
    "invisible_character": "The name is \u202egpj.exe and nothing else.",
    "outer_whitespace": "  Indented for no reason at all.",
    "text_placeholder": "[deleted]",
    "text_only_links": "https://example.org/a/long/path?with=query",
    "text_without_letters": "12 345 / 678 !!",
    "text_unbroken": "x1" * 120,
    "text_repeated_character": "So goo" + "o" * 40 + "d that I went twice.",
    "text_object": '{"body": "A film to see twice.", "lang": "en"}',
    "text_escaped": "It said \\u00e9t\\u00e9 in the export.",
    "text_formula": "=SUM(A1:A9)*2 is what the cell says",
    "personal_data": "Write to someone.else@example.org if you lost it.",
    "secret_in_text": "My key is AKIAABCDEFGHIJKLMNOP, do not tell.",
}
MORE_TEXT_FAULTS = [
    ("text_empty", "\u3000\u00a0\u200b"),
    ("mojibake", "è¿™æœ¬ä¹¦å¾ˆå¥½çœ‹ï¼ŒæŽ¨è"),
    ("mojibake", "他说锟斤拷锟斤拷就走了"),
    ("text_placeholder", "N/A"),
    ("text_placeholder", "Lorem ipsum dolor sit amet"),
    ("html_tags", "First line<br/>second line of the same"),
    ("html_tags", "<!-- generated --> The text that follows."),
    ("personal_data", "手机13431221132，欢迎联系我们大家"),
    ("text_formula", "=cmd|' /C calc'!A0"),
]
INNOCENT = [
    "I <3 this film, and 5 < 6 but 7 > 6 as we know.",
    "Ça c'est « passé » très bien à l'hôtel, naïveté comprise.",
    "Über die Straße, Ärger für alle, schöne Grüße!",
    "这本书很好看，推荐给大家。质量不错！",
    "A -- dash, a +1, an = sign and @someone in the middle.",
    "Rated 5/5 by R&D; AT&T agreed & so did we.",
    "SÃO PAULO é grande, NÃO é pequena.",
]


def validate(load: Load, path: Path, rules: ValidationRules = RULES, **options: object) -> ValidationReport:
    source = load(path, **options)
    return DataValidator(rules).validate(source.splits, found_while_reading=source.findings)


def found(report: ValidationReport, code: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.code == code]


def records(texts: Sequence[str | None], **columns: Sequence[object]) -> list[dict[str, object]]:
    return [
        {"text": text, "label": number % 2, **{name: values[number] for name, values in columns.items()}}
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize(("code", "text"), [*TEXT_FAULTS.items(), *MORE_TEXT_FAULTS])
def test_a_planted_fault_of_a_text_is_found_in_its_row(load: Load, tmp_path: Path, code: str, text: str | None) -> None:
    texts: list[str | None] = [*clean_texts(ROWS)]
    texts[AT] = text
    report = validate(load, write_rows(tmp_path / "rows.jsonl", records(texts)))
    findings = found(report, code)
    assert [finding.row for finding in findings] == [AT]
    assert findings[0].column == "text"
    assert findings[0].fix
    assert len(findings[0].excerpt) <= 80


def test_clean_rows_have_no_findings(load: Load, tmp_path: Path) -> None:
    report = validate(load, write_rows(tmp_path / "rows.jsonl", records(clean_texts(ROWS))))
    assert report.findings == ()
    assert report.finding_counts == {}


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_a_fault_is_no_finding(load: Load, tmp_path: Path, text: str) -> None:
    report = validate(load, write_rows(tmp_path / "rows.jsonl", records([*clean_texts(ROWS), text])))
    assert [finding.code for finding in report.findings] == []


def test_faults_of_the_second_text_of_a_pair_name_its_column(load: Load, tmp_path: Path) -> None:
    texts, pairs = clean_texts(ROWS), clean_texts(ROWS, seed=2)
    pairs[AT] = "Tell them &quot;no&quot; and leave."
    pairs[AT + 1] = texts[AT + 1]
    report = validate(load, write_rows(tmp_path / "rows.jsonl", records(texts, text_pair=pairs)))
    assert {(finding.code, finding.row, finding.column) for finding in report.findings} == {
        ("html_entities", AT, "text_pair"),
        ("pair_identical", AT + 1, "text_pair"),
    }


LABEL_FAULTS = [
    ("label_missing", [0, 1], None),
    ("label_missing", ["good", "bad"], "  "),
    ("label_not_a_number", ["0", "1"], "positive"),
    ("label_spelling", ["good", "bad"], "Good"),
    ("label_spelling", ["very good", "bad"], "very_good"),
    ("label_spelling", [0, 1], True),
    ("label_outlier", [0.25, 0.5], 1e9),
    ("label_list_empty", [["a"], ["b", "a"]], []),
]


@pytest.mark.parametrize(("code", "usual", "wrong"), LABEL_FAULTS)
def test_a_planted_fault_of_a_label_is_found_in_its_row(
    load: Load, tmp_path: Path, code: str, usual: list[object], wrong: object
) -> None:
    rows = records(clean_texts(ROWS))
    for number, row in enumerate(rows):
        row["label"] = usual[number // 2 % 2]
    rows[AT]["label"] = wrong
    report = validate(load, write_rows(tmp_path / "rows.jsonl", rows))
    assert [(finding.row, finding.column) for finding in found(report, code)] == [(AT, "label")]


def test_truth_values_and_numbers_are_two_spellings_of_two_labels(load: Load, tmp_path: Path) -> None:
    rows = records(clean_texts(ROWS))
    for number, row in enumerate(rows):
        row["label"] = [0, 1, "False", True, False, True][number % 6]
    report = validate(load, write_rows(tmp_path / "rows.jsonl", rows))
    assert {finding.code for finding in report.findings} == {"label_imbalance", "label_spelling"}
    assert {finding.fix for finding in found(report, "label_spelling")} == {
        "Write it as '0', like the other rows.",
        "Write it as '1', like the other rows.",
    }


def test_copies_contradictions_and_near_copies_are_found(load: Load, tmp_path: Path) -> None:
    texts = clean_texts(ROWS)
    texts[50] = texts[10]
    texts[61] = texts[20]
    words = next(text for text in texts[30:] if len(text.split()) == 16).split()
    texts[70] = " ".join([*words[:4], "altered", *words[5:]])
    report = validate(load, write_rows(tmp_path / "rows.jsonl", records(texts)))
    assert [finding.row for finding in found(report, "duplicate_exact")] == [50]
    assert "train row 10" in found(report, "duplicate_exact")[0].excerpt
    assert [finding.row for finding in found(report, "label_conflict")] == [20, 61]
    assert [finding.row for finding in found(report, "duplicate_near")] == [70]


def test_rows_without_text_are_no_copies_of_each_other(load: Load, tmp_path: Path) -> None:
    train, evaluation = clean_texts(ROWS), clean_texts(60, seed=2)
    for texts in (train, evaluation):
        texts[10] = texts[11] = texts[13] = " \u200b"
        texts[20] = texts[21] = ""
    write_rows(tmp_path / "train.jsonl", records(train))
    write_rows(tmp_path / "validation.jsonl", records(evaluation))
    report = validate(load, tmp_path)
    assert {finding.code for finding in report.findings if finding.severity in ("error", "warning")} == {"text_empty"}


def test_leaks_between_splits_are_found(load: Load, tmp_path: Path) -> None:
    train, evaluation = clean_texts(ROWS), clean_texts(60, seed=2)
    evaluation[7] = train[31]
    evaluation[9] = train[32].upper().replace(".", "!!")
    write_rows(tmp_path / "train.jsonl", records(train))
    write_rows(tmp_path / "validation.jsonl", records(evaluation))
    report = validate(load, tmp_path)
    exact, near = found(report, "leak_exact"), found(report, "leak_near")
    assert [(finding.row, finding.split) for finding in exact] == [(7, "validation")]
    assert [(finding.row, finding.split) for finding in near] == [(9, "validation")]
    assert "train row 31" in exact[0].excerpt
    assert report.has_errors


BROKEN_ROWS = {
    "row_wrong_columns": ("rows.csv", "one,two,three"),
    "quote_unclosed": ("rows.csv", '"never, closed,1'),
    "json_invalid": ("rows.jsonl", '{"text": "cut off'),
    "json_not_object": ("rows.jsonl", "[1, 2]"),
}


@pytest.mark.parametrize("code", BROKEN_ROWS)
def test_a_row_that_does_not_fit_its_file_is_found(load: Load, tmp_path: Path, code: str) -> None:
    name, broken = BROKEN_ROWS[code]
    rows = records(clean_texts(ROWS))
    header = ["text,label"] if name.endswith("csv") else []
    lines = [f'"{row["text"]}, yes",{row["label"]}' if header else json.dumps(row) for row in rows]
    at = ROWS if code == "quote_unclosed" else 5
    lines.insert(at, broken)
    (tmp_path / name).write_text("\n".join([*header, *lines]) + "\n")
    source = load(tmp_path / name)
    report = DataValidator(RULES).validate(source.splits, found_while_reading=source.findings)
    assert [(finding.row, finding.severity) for finding in found(report, code)] == [(at, "error")]
    assert len(source.splits["train"]) == ROWS
    assert at not in source.splits["train"].row_ids.tolist()


def test_rows_that_were_never_meant_to_be_rows_are_found(load: Load, tmp_path: Path) -> None:
    lines = [f"{text},{'ab'[number % 2]}" for number, text in enumerate(clean_texts(ROWS))]
    lines[AT] = "text,label"
    lines[70] = '"' + lines[70]
    lines[74] = lines[74].replace(",", '",')
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    report = validate(load, tmp_path / "rows.csv")
    assert [(finding.row, finding.severity) for finding in found(report, "header_in_rows")] == [(AT, "error")]
    assert [(finding.row, finding.severity) for finding in found(report, "rows_swallowed")] == [(70, "error")]


def test_a_single_row_that_a_quote_swallowed_is_found(load: Load, tmp_path: Path) -> None:
    lines = [f'"{text}, so",{number % 2}' for number, text in enumerate(clean_texts(ROWS))]
    lines[AT : AT + 2] = ['"Never closed,1', '"Without a comma",0']
    lines[AT + 9] = '"He wrote: one,1\nand ""two""",0'
    (tmp_path / "rows.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    assert [finding.row for finding in found(validate(load, tmp_path / "rows.csv"), "rows_swallowed")] == [AT]


def test_damage_of_files_and_headers_is_found(load: Load, tmp_path: Path) -> None:
    lines = [f"{text},{number % 2}" for number, text in enumerate(clean_texts(ROWS))]
    latin = "text,label\n" + "\n".join(lines) + "\nUn café très agréable à côté,1\n"
    (tmp_path / "latin.csv").write_bytes(latin.encode("cp1252"))
    report = validate(load, tmp_path / "latin.csv")
    assert [finding.excerpt for finding in found(report, "encoding_not_utf8")] == ["cp1252"]

    damaged = latin.encode() + "Füße über Maß,0\n".encode() + b"Lost \xff byte here,0\n"
    (tmp_path / "damaged.csv").write_bytes(damaged)
    report = validate(load, tmp_path / "damaged.csv")
    assert found(report, "encoding_invalid")
    assert [finding.row for finding in found(report, "replacement_character")] == [ROWS + 2]

    (tmp_path / "header.csv").write_text('" text ",label,label\n' + "\n".join(f"{line},x" for line in lines))
    report = validate(load, tmp_path / "header.csv")
    assert [finding.column for finding in found(report, "header_damaged")] == ["text"]
    assert [finding.column for finding in found(report, "header_repeated_name")] == ["label"]

    (tmp_path / "marked.csv").write_bytes(codecs.BOM_UTF8 + latin.encode())
    report = validate(load, tmp_path / "marked.csv")
    assert [(finding.column, finding.excerpt) for finding in found(report, "header_damaged")] == [
        ("text", r"'\ufefftext'")
    ]


SPLIT_FAULTS = {
    "label_few_rows": ["a"] * 60 + ["b"] * 58 + ["c"] * 2,
    "label_imbalance": ["a"] * 112 + ["b"] * 8,
    "label_single": ["a"] * ROWS,
    "label_many_values": [f"id-{number}" for number in range(ROWS)],
}


@pytest.mark.parametrize("code", SPLIT_FAULTS)
def test_faults_of_the_labels_of_a_split_are_found(make_rows: MakeRows, code: str) -> None:
    rows = make_rows(clean_texts(ROWS), SPLIT_FAULTS[code])
    report = DataValidator().validate({"train": rows})
    assert [(finding.row, finding.column) for finding in found(report, code)] == [(None, "label")]


def test_lists_that_are_all_empty_are_one_finding(load: Load, tmp_path: Path) -> None:
    rows = [{"text": text, "label": []} for text in clean_texts(20)]
    for name in ("train", "validation"):
        write_rows(tmp_path / f"{name}.jsonl", rows if name == "train" else [{**rows[0], "label": ["a"]}])
    report = DataValidator().validate(load(tmp_path).splits)
    assert [(finding.severity, finding.row) for finding in found(report, "label_list_empty")] == [("error", None)]


def test_a_label_that_stands_in_its_texts_is_found(make_rows: MakeRows) -> None:
    labels = ["complaint" if number % 2 else "praise" for number in range(ROWS)]
    texts = [f"{label.upper()}: {text}" for label, text in zip(labels, clean_texts(ROWS), strict=True)]
    report = DataValidator().validate({"train": make_rows(texts, labels)})
    assert len(found(report, "label_given_away")) == 2


def test_classes_that_differ_between_splits_are_found(make_rows: MakeRows) -> None:
    train = make_rows(clean_texts(ROWS), ["a", "b", "c"] * 40)
    evaluation = make_rows(clean_texts(40, seed=2), ["a"] * 39 + ["d"], name="validation")
    unlabelled = make_rows(clean_texts(40, seed=3), [None] * 40, name="test")
    report = DataValidator().validate({"train": train, "validation": evaluation, "test": unlabelled})
    excerpts = {finding.code: finding.excerpt for finding in report.findings}
    assert excerpts["label_unseen"] == "not in training: d"
    assert excerpts["label_absent"] == "not in validation: b, c"
    assert "label_shift" in excerpts
    assert "eval_small" in excerpts
    assert [finding.split for finding in found(report, "split_without_labels")] == ["test"]


def test_training_rows_without_any_label_are_an_error(make_rows: MakeRows) -> None:
    report = DataValidator().validate({"train": make_rows(clean_texts(ROWS), [None] * ROWS)})
    (finding,) = found(report, "split_without_labels")
    assert (finding.severity, finding.fix) == ("error", "Name another column with data.label_column, or add labels.")


def test_the_share_of_truncated_texts_is_counted_by_the_tokenizer(make_rows: MakeRows) -> None:
    def count_tokens(texts: Sequence[str], pairs: Sequence[str] | None) -> np.ndarray:
        assert pairs is None
        return np.asarray([len(text.split()) + 2 for text in texts])

    texts = clean_texts(ROWS)
    expected = sum(len(text.split()) + 2 > 16 for text in texts)
    report = DataValidator(max_length=16, count_tokens=count_tokens).validate({"train": make_rows(texts)})
    assert found(report, "text_truncated")[0].excerpt.startswith(f"{expected} of {ROWS} texts")


def test_every_rule_keeps_its_first_findings_and_counts_the_others(make_rows: MakeRows) -> None:
    texts = [f"{text} &amp; so on" for text in clean_texts(ROWS)]
    report = DataValidator(max_findings=10).validate({"train": make_rows(texts)})
    assert len(found(report, "html_entities")) == 10
    assert report.finding_counts == {"html_entities": ROWS}


def test_the_report_has_the_keys_that_users_know(make_rows: MakeRows) -> None:
    rows = make_rows(clean_texts(500), [0] * 245 + [1] * 255)
    document = DataValidator().validate({"train": rows}).as_dict()
    assert {key: document[key] for key in ("total_samples", "label_counts", "imbalance_ratio", "is_balanced")} == {
        "total_samples": 500,
        "label_counts": {"0": 245, "1": 255},
        "imbalance_ratio": 1.04,
        "is_balanced": True,
    }
    json.dumps(document, allow_nan=False)


def test_more_than_25_kinds_of_faults_are_planted_here() -> None:
    planted = {*TEXT_FAULTS, *(code for code, _, _ in LABEL_FAULTS), *BROKEN_ROWS, *SPLIT_FAULTS}
    assert len(planted) + len({"duplicate_exact", "duplicate_near", "label_conflict", "leak_exact", "leak_near"}) >= 40
