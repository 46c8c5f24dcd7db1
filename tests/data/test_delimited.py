"""csv and tsv as people really write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from loramill.data.delimited import find_dialect, read_delimited
from loramill.data.tables import FileRows
from loramill.data.text_input import HEAD, ReadLimits
from loramill.errors import DataTooLargeError, EmptyDatasetError, UnreadableDataError

PLAIN = [("good, very good", "1"), ("bad", "0"), ("so-so", "1"), ("never again", "0")]


def read(path: Path, content: str | bytes) -> FileRows:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_delimited(path, ReadLimits())


def rows_of(file: FileRows) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in file.table.to_pylist()]


WRITTEN = {
    "comma": 'text,label\n"good, very good",1\nbad,0\nso-so,1\nnever again,0\n',
    "semicolon": "text;label\ngood, very good;1\nbad;0\nso-so;1\nnever again;0\n",
    "tab": "text\tlabel\ngood, very good\t1\nbad\t0\nso-so\t1\nnever again\t0\n",
    "bar": "text|label\ngood, very good|1\nbad|0\nso-so|1\nnever again|0\n",
    "crlf": 'text,label\r\n"good, very good",1\r\nbad,0\r\nso-so,1\r\nnever again,0\r\n',
    "cr": 'text,label\r"good, very good",1\rbad,0\rso-so,1\rnever again,0\r',
    "bom": '\ufefftext,label\n"good, very good",1\nbad,0\nso-so,1\nnever again,0\n',
    "blank lines": '\ntext,label\n\n"good, very good",1\nbad,0\n\nso-so,1\nnever again,0\n\n',
    "no newline at the end": 'text,label\n"good, very good",1\nbad,0\nso-so,1\nnever again,0',
    "all quoted": '"text","label"\n"good, very good","1"\n"bad","0"\n"so-so","1"\n"never again","0"\n',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_rows_are_read_however_they_are_written(tmp_path: Path, name: str) -> None:
    file = read(tmp_path / "rows.csv", WRITTEN[name])
    assert file.table.column_names == ["text", "label"]
    assert rows_of(file) == PLAIN
    assert [finding.code for finding in file.findings] == (["header_damaged"] if name == "bom" else [])
    assert file.row_ids.tolist() == [0, 1, 2, 3]


def test_quotes_and_newlines_inside_values_are_kept(tmp_path: Path) -> None:
    file = read(tmp_path / "rows.csv", 'text,label\n"two\nlines",1\n"she said ""no""",0\nit\'s "fine",1\n')
    assert [row[0] for row in rows_of(file)] == ["two\nlines", 'she said "no"', 'it\'s "fine"']


def test_a_tsv_with_stray_quotes_is_read_without_quoting(tmp_path: Path) -> None:
    lines = [f'"Hello" said number {number}\t{number % 2}' for number in range(50)] + ['"never closed\t1']
    file = read(tmp_path / "rows.tsv", "text\tlabel\n" + "\n".join(lines) + "\n")
    assert file.table.num_rows == 51
    assert rows_of(file)[-1] == ('"never closed', "1")


def test_long_quoted_texts_of_several_paragraphs_are_read_with_quotes(tmp_path: Path) -> None:
    text = "\n\n".join(["A paragraph, with commas, of some length."] * 200)
    assert len(text) * 60 > HEAD > len(text) * 20
    file = read(tmp_path / "rows.csv", "text,label\n" + "".join(f'"{text}",{number % 2}\n' for number in range(60)))
    assert rows_of(file) == [(text, str(number % 2)) for number in range(60)]
    assert file.findings == ()


def test_a_stray_quote_far_down_is_reported_and_its_rows_are_saved(tmp_path: Path) -> None:
    lines = [f"text number {number},{number % 2}" for number in range(1000)]
    lines[700] = '"never closed,1'
    file = read(tmp_path / "rows.csv", "text,label\n" + "\n".join(lines) + "\n")
    assert file.table.num_rows == 1000
    assert [(finding.code, finding.row, finding.severity) for finding in file.findings] == [
        ("quote_unclosed", 700, "warning")
    ]


def test_a_quote_that_is_not_closed_costs_its_row_and_the_next_one(tmp_path: Path) -> None:
    lines = [f'"first, second, third, {number}",{number % 2}' for number in range(60)]
    lines[20] = '"never closed,1'
    file = read(tmp_path / "rows.csv", "text,label\n" + "\n".join(lines) + "\n")
    assert [(finding.code, finding.row) for finding in file.findings] == [("quote_unclosed", 20)]
    assert [row[0] for row in rows_of(file)] == [f"first, second, third, {n}" for n in range(60) if n not in (20, 21)]


def test_quotes_after_a_backslash_are_part_of_the_value(tmp_path: Path) -> None:
    lines = [f'"She said \\"yes, {number}\\"",{number % 2}' if number % 9 else '"Plain, so",1' for number in range(60)]
    file = read(tmp_path / "rows.csv", "text,label\n" + "\n".join(lines) + "\n")
    assert file.findings == ()
    assert (len(rows_of(file)), rows_of(file)[4][0]) == (60, 'She said "yes, 4"')
    assert "backslashes" in file.notes[0]


def test_rows_with_other_columns_are_left_out_under_their_numbers(tmp_path: Path) -> None:
    lines = [f"text number {number},{number % 2}" for number in range(20)]
    lines[3], lines[9] = "no label here", "too,many,values"
    lines[7] += "\n"
    file = read(tmp_path / "rows.csv", "\n\ntext,label\n" + "\n".join(lines) + "\n")
    assert [finding.row for finding in file.findings] == [3, 9]
    assert file.row_ids.tolist() == [number for number in range(20) if number not in (3, 9)]


def test_a_file_without_a_header_is_recognised(tmp_path: Path) -> None:
    rows = "".join(f"{number}\t{number % 7 - 3.5}\tA sentence with number {number}.\n" for number in range(30))
    file = read(tmp_path / "rows.tsv", rows)
    assert file.table.column_names == ["column_1", "column_2", "column_3"]
    assert file.table.num_rows == 30
    assert "no header" in file.notes[0]


def test_labels_alone_show_that_there_is_no_header(tmp_path: Path) -> None:
    file = read(tmp_path / "rows.csv", "a fine film,good\na bad film,bad\nanother one,good\nand another,bad\n")
    assert file.table.num_rows == 4


def test_a_header_that_comes_again_soon_is_still_the_header(tmp_path: Path) -> None:
    part = "text,label\na fine film,good\na bad film,bad\nanother one,good\n"
    file = read(tmp_path / "rows.csv", part + part)
    assert file.table.column_names == ["text", "label"]
    assert file.table.num_rows == 7


def test_empty_values_stay_empty_texts(tmp_path: Path) -> None:
    file = read(tmp_path / "rows.csv", "text,label\n,1\nNA,0\nnull,1\nsome text,0\n")
    assert [row[0] for row in rows_of(file)] == ["", "NA", "null", "some text"]


def test_formulas_stay_text(tmp_path: Path) -> None:
    formulas = ["=SUM(A1:A2)", "@SUM(1)", "+1+cmd|' /C calc'!A0", "-2+3"]
    file = read(tmp_path / "rows.csv", "text,label\n" + "".join(f"{formula},1\n" for formula in formulas))
    assert [row[0] for row in rows_of(file)] == formulas


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyDatasetError),
        (b"\n\n \n", EmptyDatasetError),
        (b"text,label", EmptyDatasetError),
        (",".join(f"c{number}" for number in range(1_000_000)).encode() + b"\n", DataTooLargeError),
        (b'text,label\n"' + (b"x" * 1000 + b"\n") * 50_000 + b'",1\n', UnreadableDataError),
        (b"text,label\n" + b"just a line\n" * 100, UnreadableDataError),
    ],
    ids=["empty", "blank", "header", "a million columns", "a value of 50 MB", "no table"],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(tmp_path / "rows.csv", content)


def test_a_dialect_is_found_by_the_most_even_columns() -> None:
    assert find_dialect("a,b;c\n1,2;3\n4,5;6,7\n8;9\n").separator == ";"
    assert find_dialect("one column\nno separator\n", prefer="\t").separator == "\t"
