"""Data with something wrong: one clear message and no run where it cannot go on, a stated repair where it can."""

import os
import random
import sys

import pytest

DRAW = random.Random(0)
ROWS = [(round(DRAW.gauss(0, 1), 3), round(DRAW.uniform(1, 9), 2)) for _ in range(80)]


def csv(*changes, header="a,b,price", row=lambda a, b: f"{a},{b},{3 * a + b:.3f}"):
    """A good table, except for (row number, its line) in changes."""
    lines = [row(a, b) for a, b in ROWS]
    for number, line in changes:
        lines[number] = line
    return "\n".join([header, *lines]) + "\n"


FATAL = {
    "missing target": (csv(), "prise", ['has no column "prise". Did you mean "price"?', "Columns: a, b and price"]),
    "no target named": (csv(), None, ["which column is to be learned?", "--target price"]),
    "constant target": (csv(row=lambda a, b: f"{a},{b},5"), "price", ["5 in every row", "nothing to learn"]),
    "one class": (csv(row=lambda a, b: f"{a},{b},yes"), "price", ['one class only ("yes" in every row)']),
    "text target": (csv(row=lambda a, b: f"{a},{b},house {a}"), "price", ["identifier, free text or an amount"]),
    "a class with one example": (csv((3, "1,1,odd"), row=lambda a, b: f"{a},{b},{'x' if a > 0 else 'y'}"), "price",
                                 ['"odd" in line 5', "--drop-rare-classes"]),
    "empty": ("", "price", ["houses.csv is empty (0 bytes)"]),
    "blank": (" \n\n", "price", ["houses.csv is empty"]),
    "header only": ("a,b,price\n", "price", ["a header but no rows"]),
    "four rows": ("a,price\n1,2\n2,3\n3,4\n4,5\n", "price", ["at least 5 are needed"]),
    "a row too long": (csv((4, "1,2,3,4,5")), "price", ["line 6: 5 cells, but the table has 3", "--bad-rows skip"]),
    "no number in the target": (csv(row=lambda a, b: f"{a},{b},")[:-1], "price", ["no value in any row"]),
    "all columns constant": (csv(row=lambda a, b: f"1,1,{a}"), "price", ["no column left to learn from"]),
    "target alone": ("price\n" + "\n".join(str(a) for a, _ in ROWS), "price", ["one column"]),
    "binary garbage": (random.Random(1).randbytes(4000), "price", ["houses.csv is binary"]),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "price", ["cannot be read as an image: its content"]),
    "a workbook": (b"PK\x03\x04" + b"x" * 300, "price", ["Excel workbook", "export the sheet as CSV"]),
    "a web page": ("<!DOCTYPE html><html></html>", "price", ["a web page"]),
    "JSON": ('[{"a": 1}]', "price", ["looks like JSON"]),
    "a damaged archive": (b"\x1f\x8b" + b"x" * 50, "price", ["damaged gzip"]),
    "damaged Parquet": (b"PAR1" + b"x" * 50 + b"PAR1", "price", ["cannot be read as Parquet"]),
}  # fmt: skip


@pytest.mark.parametrize("trouble", FATAL)
def test_it_cannot_go_on(cli, table, tmp_path, trouble):
    content, target, messages = FATAL[trouble]
    table("houses.csv", content)
    shown = cli("train", "houses.csv", *(["--target", target] if target else []))
    assert shown.code == 2
    assert shown.out == ""
    for message in messages:
        assert message in shown.err
    assert len(shown.err.splitlines()) <= 4
    assert not list(tmp_path.glob("runs/*"))


REPAIRED = {
    "text where a number should be": (
        csv((7, "oops,2,3")),
        'text where a number should be, treated as missing, "oops"',
    ),
    "text in the target": (csv((7, "1,2,oops")), 'left out where it is no finite number, first "oops" in line 9'),
    "a gap in the target": (csv((7, "1,2,")), "price (target): 1 row left out where it is missing (line 9)"),
    "infinity": (csv((7, "inf,2,3")), 'a: 1 cell infinite, treated as missing, "inf" in line 9'),
    "infinity in the target": (csv((7, "1,2,-inf")), 'first "-inf" in line 9'),
    "NaN": (csv((7, "nan,2,3")), "1 with gaps"),
    "a constant column": (csv(row=lambda a, b: f"{a},7,{a}"), "b (the same in every training row (7))"),
    "a row too short": (csv((7, "1,2")), "1 row is shorter than the first (line 9)"),
    "Latin-1": (csv(header="a,größe,price").encode("latin-1"), "not UTF-8: read as Latin-1"),
    "UTF-16": (csv().encode("utf-16"), "read as UTF-16"),
    "a column that counts": (
        csv(header="id,b,price", row=lambda a, b: f"{ROWS.index((a, b))},{b},{a}"),
        "1 ignored: id",
    ),
    "a name twice": (csv(header="a,a,price"), "column names that occur twice are numbered"),
}


@pytest.mark.parametrize("trouble", REPAIRED)
def test_it_goes_on_and_says_what_was_repaired(cli, table, tmp_path, trouble):
    content, message = REPAIRED[trouble]
    table("houses.csv", content)
    shown = cli("train", "houses.csv", "--target", "price", "--epochs", 1)
    assert shown.code == 0, shown.err
    assert message in shown.out


def test_repairs_are_in_the_log_and_in_the_results(cli, table, tmp_path):
    table("houses.csv", csv((7, "oops,2,3")))
    assert cli("train", "houses.csv", "--target", "price", "--epochs", 1, "--quiet").code == 0
    assert '"oops" in line 9' in (tmp_path / "runs/houses-1/log.txt").read_text()
    assert "oops" in (tmp_path / "runs/houses-1/results.json").read_text()


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ("hauses.csv", ["there is no file hauses.csv", 'Did you mean "houses.csv"?', "iris"]),
        ("irsi", ['Did you mean "iris"?']),
        ("no/such/houses.csv", ["The folder no/such does not exist either"]),
        ("empty folder", ["a folder without IDX files and images", "It holds no files"]),
        (".", ["a folder without IDX files and images", "houses.csv"]),
        ("\0", []),
        ("x" * 5000, ["cannot be read"]),
    ],
    ids=["typo", "typo of a shipped set", "no folder", "empty folder", "folder", "nul", "too long"],
)
def test_sources_that_are_none(cli, table, tmp_path, source, messages):
    table("houses.csv")
    (tmp_path / "empty folder").mkdir()
    shown = cli("train", source)
    assert shown.code == 2
    for message in messages:
        assert message in shown.err


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="all is permitted"
)
def test_a_file_without_permission(cli, table):
    table("houses.csv").chmod(0)
    shown = cli("train", "houses.csv", "-t", "price")
    assert shown.code == 2
    assert "Permission denied" in shown.err


def test_a_folder_for_runs_that_is_none(cli, table):
    table("runs", "a file")
    shown = cli("train", "iris", "--epochs", 1)
    assert shown.code == 2
    assert "No run could be made in runs" in shown.err


def test_a_name_that_is_taken(cli, iris_run):
    shown = cli("train", "iris", "--name", "iris")
    assert shown.code == 2
    assert shown.out == ""
    assert "There is a run named 'iris'" in shown.err
