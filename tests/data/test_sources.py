"""Reading files as people have them: each repair is stated, each failure is one DataError that says where."""

import csv
import gzip
import io
import struct

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import data
from chainrule.data.delimited import parse
from chainrule.data.records import rewritten, scan
from chainrule.errors import ChainruleError, ConfigError, DataError


@pytest.fixture
def write(tmp_path):
    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


def cells(table):
    return [list(row) for row in table.frame.rows()]


def notes(table):
    return "\n".join(table.notes)


def test_plain_csv_needs_no_repair(write):
    table = data.read(write("a,b\n1,x\n2,y\n"))
    assert table.columns == ("a", "b")
    assert cells(table) == [["1", "x"], ["2", "y"]]
    assert table.notes == ()
    assert table.where(1) == "line 3"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_found(write, separator):
    text = "a,b,c\n1,x,2\n3,y z,4\n".replace(",", separator)
    table = data.read(write(text))
    assert table.columns == ("a", "b", "c")
    assert cells(table)[1] == ["3", "y z", "4"]


def test_semicolons_with_decimal_commas(write):
    table = data.read(write("a;b\n1,5;2,25\n3,5;4\n"))
    assert table.columns == ("a", "b")
    assert table.decimal == ","
    assert "decimal comma" in notes(table)


def test_semicolons_with_decimal_points(write):
    table = data.read(write("a;b\n1.5;2.25\n3.5;4\n"))
    assert table.decimal is None
    assert table.notes == ()


def test_blanks_separate_where_nothing_else_does(write):
    table = data.read(write("  1.0   2.5 3\n  4.0  5.5 6\n", "housing.data"))
    assert cells(table) == [["1.0", "2.5", "3"], ["4.0", "5.5", "6"]]
    assert "separated by blanks" in notes(table)


def test_excel_states_its_separator(write):
    table = data.read(write("sep=;\r\na;b\r\n1;2\r\n"))
    assert table.columns == ("a", "b")
    assert table.where(0) == "line 3"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings(write, encoding):
    table = data.read(write("name,größe\nJosé,1\nMüller,2\n".encode(encoding)))
    assert table.columns == ("name", "größe")
    assert cells(table)[0] == ["José", "1"]


@pytest.mark.parametrize(("encoding", "title"), [("latin-1", "Latin-1"), ("cp1252", "Windows-1252")])
def test_other_encodings_are_read_and_said(write, encoding, title):
    text = "name,price\nplain,1\nJosé,2\n" + ("Zoë,€5\n" if encoding == "cp1252" else "")
    table = data.read(write(text.encode(encoding)))
    assert cells(table)[1] == ["José", "2"]
    assert f"read as {title}" in notes(table) and "line 3" in notes(table) and "José" in notes(table)


def test_a_stated_encoding_is_taken(write):
    table = data.read(write("name,n\nŁódź,1\n".encode("cp1250")), encoding="cp1250")
    assert cells(table) == [["Łódź", "1"]]
    with pytest.raises(DataError, match="line 2: not valid utf-8"):
        data.read(write("name,n\nŁódź,1\n".encode("cp1250")), encoding="utf-8")
    with pytest.raises(ConfigError, match="nonsense"):
        data.read(write("a,b\n1,2\n"), encoding="nonsense")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(write, end):
    table = data.read(write(end.join(["a,b", "1,2", "3,4"])))
    assert cells(table) == [["1", "2"], ["3", "4"]]
    assert table.where(1) == "line 3"


def test_gzip_is_unpacked_and_a_damaged_one_refused(write):
    packed = gzip.compress(b"a,b\n1,2\n")
    assert cells(data.read(write(packed, "t.csv.gz"))) == [["1", "2"]]
    with pytest.raises(DataError, match="damaged gzip"):
        data.read(write(packed[:-9], "t.csv.gz"))


def test_quotes_newlines_and_separators_in_cells(write):
    table = data.read(write('a,b\n"x, ""y""",1\n"two\nlines",2\nz,3\n'))
    assert cells(table) == [['x, "y"', "1"], ["two\nlines", "2"], ["z", "3"]]
    assert [table.where(row) for row in range(3)] == ["line 2", "line 3", "line 5"]


def test_stray_quotation_marks(write):
    table = data.read(write('size,n\n5" pipe,1\n6" pipe,2\n7" "wide",3\n'))
    assert cells(table)[:2] == [['5" pipe', "1"], ['6" pipe', "2"]]
    assert table.where(2) == "line 4"


def test_blanks_before_quotation_marks(write):
    assert cells(data.read(write('a, b\n1, "x, y"\n2, "z"\n'))) == [["1", "x, y"], ["2", "z"]]


def test_quotation_mark_never_closed(write):
    with pytest.raises(DataError, match=r"table\.csv, line 3: .*never closed"):
        data.read(write('a,b\n1,2\n"3,4\n5,6\n7,8\n'))


def test_short_rows_are_filled_and_said(write):
    table = data.read(write("a,b,c\n1,2,3\n4\n5,6,7\n8,9"))
    assert cells(table)[1] == ["4", None, None]
    assert "2 rows are shorter" in notes(table) and "lines 3 and 5" in notes(table)


def test_long_rows_are_an_error_with_the_line(write):
    path = write("a,b\n1,2\n3,4,five\n6,7\n8,9,ten\n")
    with pytest.raises(DataError) as info:
        data.read(path)
    message = str(info.value)
    assert "table.csv, line 3: 3 cells" in message
    assert '"five"' in message and "lines 3 and 5" in message and "bad_rows" in message
    table = data.read(path, bad_rows="skip")
    assert cells(table) == [["1", "2"], ["6", "7"]]
    assert table.where(1) == "line 4"
    assert "2 rows with too many cells left out" in notes(table)


def test_separators_at_the_end_of_rows_are_no_cells(write):
    assert cells(data.read(write("a,b\n1,2,\n3,4,,\n"))) == [["1", "2"], ["3", "4"]]
    assert cells(data.read(write("a,b,\n1,2,\n3,4,\n"))) == [["1", "2"], ["3", "4"]]
    assert cells(data.read(write("a,b\n1,2,\n3,4,\n"))) == [["1", "2"], ["3", "4"]]


def test_row_names_as_r_writes_them(write):
    table = data.read(write('"mpg","cyl"\n"Mazda",21,6\n"Fiat",32,4\n'))
    assert table.columns == ("row name", "mpg", "cyl")
    assert cells(table)[0] == ["Mazda", "21", "6"]


def test_blank_lines_and_rows_of_nothing(write):
    table = data.read(write("a,b\n\n1,2\n,\n   \n3,4\n\n"))
    assert cells(table) == [["1", "2"], ["3", "4"]]
    assert [table.where(row) for row in range(2)] == ["line 3", "line 6"]
    assert "1 row without any value" in notes(table)


def test_titles_and_comments_above_the_header(write):
    table = data.read(write("Sales report, 2020\n\n"[:12] + "\n\nname,x,y\nu,1,2\nv,3,4\nw,5,6\n"))
    assert table.columns == ("name", "x", "y")
    assert "above the table" in notes(table)
    table = data.read(write("# made by hand\n# in 1999\na,b\n1,2\n3,4\n5,6\n"))
    assert table.columns == ("a", "b")
    table = data.read(write("#a,b\n1,2\n3,4\n"))
    assert table.columns == ("a", "b")


def test_missing_header_is_guessed_and_can_be_overruled(write):
    path = write("5.1,3.5,setosa\n4.9,3.0,setosa\n")
    table = data.read(path)
    assert table.columns == ("column_1", "column_2", "column_3") and table.rows == 2
    assert "header=True" in notes(table)
    assert data.read(path, header=True).rows == 1
    words = write("name,city\nAnn,Ulm\n")
    assert data.read(words).rows == 1
    assert data.read(words, header=False).rows == 2


def test_years_as_column_names(write):
    table = data.read(write("country,2019,2020,2021\nDE,1.5,2.5,3\nFR,2,4,1\n"))
    assert table.columns == ("country", "2019", "2020", "2021")


def test_column_names_are_made_unique(write):
    table = data.read(write("a,a,, b ,a_2\n1,2,3,4,5\n"))
    assert table.columns == ("a", "a_3", "column 3", "b", "a_2")
    assert "occur twice" in notes(table) and "no name" in notes(table)


def test_words_for_missing_cells(write):
    table = data.read(write("a,b,c\nNA,x,nan\n?,,1\n-,none,n/a\n"), missing=["none"])
    assert cells(table) == [[None, "x", None], [None, None, "1"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b,c\n", "header but no rows"),
        (b"a,b,c\n,,\n,,\n", "not one value"),
        (b"PK\x03\x04 something", "Excel"),
        (b"%PDF-1.4 ...", "PDF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b'[{"a": 1}]', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (bytes(range(256)) * 8, "binary"),
    ],
)
def test_what_is_no_table_is_said_plainly(write, content, words):
    with pytest.raises(DataError, match=words) as info:
        data.read(write(content))
    assert "table.csv" in str(info.value)


def test_files_that_are_not_there(write, tmp_path, monkeypatch):
    write("a,b\n1,2\n", "houses.csv")
    with pytest.raises(DataError, match=r"no file .*house\.csv(.|\n)*houses\.csv"):
        data.read(tmp_path / "house.csv")
    with pytest.raises(DataError, match="does not exist either"):
        data.read(tmp_path / "nowhere" / "house.csv")
    with pytest.raises(DataError, match=r"folder without IDX files and images(.|\n)*houses\.csv"):
        data.read(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match='Did you mean "digits"'):
        data.read("digitz")


def test_a_shipped_name_wins_over_a_file(write, tmp_path, monkeypatch):
    write("a,b\n1,2\n", "iris")
    monkeypatch.chdir(tmp_path)
    assert data.read("iris").rows == 150
    assert data.read("./iris").rows == 1


def test_options_that_make_no_sense(write, tmp_path):
    path = write("a,b\n1,2\n")
    for options in ({"separator": "ab"}, {"separator": '"'}, {"decimal": "x"}, {"bad_rows": "drop"}):
        with pytest.raises(ConfigError):
            data.read(path, **options)
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="separator"):
        data.read(tmp_path / "x.npz", separator=",")


def test_thousands_of_columns(write):
    names = ",".join(f"c{i}" for i in range(5000))
    row = ",".join(str(i) for i in range(5000))
    table = data.read(write(f"{names}\n{row}\n{row}\n"))
    assert len(table.columns) == 5000 and table.rows == 2


def test_parquet(tmp_path):
    frame = pl.DataFrame({"a": [1.5, None], "b": ["x", "NA"]}, schema_overrides={"b": pl.Categorical})
    frame.write_parquet(tmp_path / "t.csv")  # the content decides, not the name
    table = data.read(tmp_path / "t.csv")
    assert cells(table) == [[1.5, "x"], [None, None]]
    whole = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.parquet cannot be read as Parquet"):
        data.read(tmp_path / "cut.parquet")


def test_npz_of_images_keeps_its_test_part(tmp_path):
    x, y = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "mnist.npz", x_train=x[:3], y_train=y[:3], x_test=x[3:], y_test=y[3:])
    images = data.read(tmp_path / "mnist.npz")
    assert images.image_shape == (2, 3) and images.test_rows == 1
    np.testing.assert_array_equal(images.x, x)
    np.testing.assert_array_equal(images.y, y)


@pytest.mark.parametrize("names", ["x y", "X Y", "data target", "images labels", "trainX trainY", "y_train x_train"])
def test_npz_names(tmp_path, names):
    names = sorted(names.split(), key=lambda name: "y" in name.lower() or name in ("target", "labels"))
    x, y = np.random.default_rng(0).normal(size=(5, 2)), np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]])
    np.savez(tmp_path / "a.npz", **{names[0]: x, names[1]: y})
    table = data.read(tmp_path / "a.npz")
    assert table.target is not None
    assert table.columns == ("x0", "x1", table.target)
    assert table.frame[table.target].to_list() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(table.frame.select("x0", "x1").to_numpy(), x)


def test_npz_of_columns(tmp_path):
    np.savez(tmp_path / "a.npz", age=np.arange(3), city=np.array(["a", "b", "c"]), pair=np.ones((3, 2)))
    assert data.read(tmp_path / "a.npz").columns == ("age", "city", "pair_0", "pair_1")


def test_npz_refuses_objects_and_damage(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        data.read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(DataError, match="3 rows, but y has 4 labels"):
        data.read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", one=np.zeros(3), two=np.zeros(4))
    with pytest.raises(DataError, match="no columns of equal length"):
        data.read(tmp_path / "c.npz")
    whole = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:100])
    with pytest.raises(DataError, match=r"d\.npz"):
        data.read(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", x=np.zeros((3, 2), complex))
    with pytest.raises(DataError, match="complex"):
        data.read(tmp_path / "e.npz")


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx_folder_with_its_four_files(tmp_path, packed):
    x, y = np.arange(5 * 6).reshape(5, 2, 3), np.array([0, 1, 1, 0, 1])
    for part, rows in (("train", slice(3)), ("t10k", slice(3, None))):
        for name, array in ((f"{part}-images-idx3", x[rows]), (f"{part}-labels-idx1", y[rows])):
            content = gzip.compress(idx(array)) if packed else idx(array)
            (tmp_path / f"{name}-ubyte{'.gz' * packed}").write_bytes(content)
    images = data.read(tmp_path)
    np.testing.assert_array_equal(images.x, x)
    np.testing.assert_array_equal(images.y, y)
    assert images.test_rows == 2 and images.x.dtype == np.uint8
    alone = data.read(tmp_path / f"t10k-images-idx3-ubyte{'.gz' * packed}")
    np.testing.assert_array_equal(alone.y, y[3:])
    assert alone.test_rows == 0


def test_idx_without_labels_and_damaged(tmp_path):
    path = tmp_path / "some-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((3, 2, 2))))
    images = data.read(path)
    assert images.y is None and "no labels" in images.notes[0]
    path.write_bytes(idx(np.zeros((3, 2, 2)))[:-1])
    with pytest.raises(DataError, match="should hold 12 bytes"):
        data.read(path)
    (tmp_path / "some-labels-idx1-ubyte").write_bytes(idx(np.zeros(2)))
    path.write_bytes(idx(np.zeros((3, 2, 2))))
    with pytest.raises(DataError, match="3 rows, but some-labels-idx1-ubyte has 2 labels"):
        data.read(path)
    with pytest.raises(DataError, match="labels only"):
        data.read(tmp_path / "some-labels-idx1-ubyte")


def test_table_of_python_values():
    table = data.Table.of({"n": [1, 2.5, None], "mixed": [1, "a", None], "b": np.array([b"x", b"y", b"z"])})
    assert cells(table) == [[1.0, "1", "x"], [2.5, "a", "y"], [None, None, "z"]]
    with pytest.raises(DataError, match="different lengths: a 2 and b 3"):
        data.Table.of({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(DataError, match="shape"):
        data.Table.of({"a": np.zeros((2, 2))})


CELL = st.text(st.sampled_from('ab1,;\t" \n.é'), max_size=6)


@given(st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=6), st.sampled_from(",;\t|"))
@settings(deadline=None, max_examples=200)
def test_what_csv_writes_is_read_back(rows, separator):
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerows([["one", "two", "three"], ["k", "k", "k"], *rows])
    table = parse(text.getvalue().encode(), "t", [], separator=separator, header=True)
    missing = {"", "-", ".", "?"}
    kept = [[None if cell in missing else cell for cell in row] for row in rows]
    assert cells(table)[1:] == [row for row in kept if any(cell is not None for cell in row)]


QUOTED = st.text(st.sampled_from('a,"\n é'), max_size=5)


@given(st.lists(st.lists(QUOTED, min_size=2, max_size=3), min_size=1, max_size=5))
@settings(deadline=None, max_examples=200)
def test_strict_text_is_the_same_record_by_record_when_rewritten(rows):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    strict, lenient = scan(text.getvalue().encode(), ","), rewritten(text.getvalue().encode(), ",", "t")
    assert strict is not None
    assert strict.lines.tolist() == lenient.lines.tolist()
    assert strict.fields.tolist() == lenient.fields.tolist() == [len(row) for row in rows]


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_a_table_or_one_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(content)
    try:
        assert data.read(path).rows > 0
    except ChainruleError as error:
        assert "bytes.csv" in str(error)


@given(st.text(st.sampled_from('ab12,;\t"\n .#é|'), max_size=80))
@settings(deadline=None, max_examples=500)
def test_any_text_gives_a_table_or_one_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "text.csv"
    path.write_text(content, encoding="utf-8", newline="")
    try:
        table = data.read(path)
        assert table.rows == len(table.lines) > 0
        assert len(set(table.columns)) == len(table.columns)
    except ChainruleError as error:
        assert "text.csv" in str(error)
