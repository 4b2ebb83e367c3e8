"""Preparing tables and images: kinds of columns, tasks, splits, encodings, and what cannot be learned from."""

import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from chainrule import data
from chainrule.data.columns import BooleanColumn, CategoryColumn, DateColumn, NumberColumn
from chainrule.errors import CheckpointError, ConfigError, DataError

Preparation = data.Preparation


def table(rows=100, seed=0, **columns):
    """A table whose target y depends on x; further columns as given."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    return data.Table.of({"x": x, **columns, "y": np.where(x > 0, "yes", "no")}, "toy.csv")


def column(preparation, name):
    return {column.name: column for column in preparation.features.columns}[name]


def strings(values, repeat):
    return [values[i % len(values)] for i in range(repeat)]


# Kinds of columns


def test_kinds_are_inferred():
    rows = 100
    random = np.random.default_rng(1)
    source = table(
        rows,
        number=[f"{value:.3f}" for value in random.normal(size=rows)],
        city=strings(["Ulm", "Bonn", "Köln"], rows),
        garden=strings(["yes", "No", "yes"], rows),
        sold=[f"2020-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(rows)],
        flag=strings([True, False, False], rows),
        owner_id=random.permutation(5000)[:rows],
        name=[f"person {i}" for i in range(rows)],
        same=["x"] * rows,
        none=[None] * rows,
    )
    prepared = data.prepare(source, "y")
    kinds = {column.name: type(column) for column in prepared.preparation.features.columns}
    assert kinds == {
        "x": NumberColumn,
        "number": NumberColumn,
        "city": CategoryColumn,
        "garden": BooleanColumn,
        "sold": DateColumn,
        "flag": BooleanColumn,
    }
    ignored = prepared.preparation.features.ignored
    assert ignored["owner_id"] == ignored["name"] == "unique in every row"
    assert "same in every" in ignored["same"] and "no value" in ignored["none"]
    assert prepared.summary[0] == "toy.csv   100 rows × 11 columns   target y (binary)"
    assert prepared.summary[1].startswith("  2 numeric · 2 yes/no · 1 category (3 levels) · 1 date")
    assert "4 ignored: owner_id (unique in every row)" in prepared.summary[1]
    assert prepared.summary[2] == "  split 80 / 10 / 10 (seed 0)"


def test_kinds_can_be_chosen():
    source = table(100, zip=strings([10115, 89073, 50667], 100), note=strings(["1", "2", "x"], 100))
    preparation = Preparation.fit(source, "y", kinds={"zip": "category", "note": "number", "x": "ignore"})
    assert column(preparation, "zip").levels == ("10115", "50667", "89073")
    assert isinstance(column(preparation, "note"), NumberColumn)
    assert preparation.features.ignored == {"x": "as asked"}
    with pytest.raises(ConfigError, match='"zipp"'):
        Preparation.fit(source, "y", kinds={"zipp": "category"})
    with pytest.raises(ConfigError, match="Kinds: number"):
        Preparation.fit(source, "y", kinds={"zip": "text"})
    for kind in ("number", "date", "boolean"):
        with pytest.raises(DataError, match=r'toy\.csv: column "city"'):
            Preparation.fit(table(city=strings(["Ulm", "Bonn"], 100)), "y", kinds={"city": kind})


def test_a_counter_is_ignored_unless_it_is_all_there_is():
    counter = np.arange(1, 101)
    y = np.where(counter > 50, "b", "a")
    both = data.Table.of({"n": counter, "x": np.sin(counter), "y": y})
    assert Preparation.fit(both, "y").features.ignored == {"n": "counts the rows"}
    alone = data.Table.of({"n": counter, "y": y})
    assert Preparation.fit(alone, "y").feature_names == ("n",)


def test_numbers_are_standardised_by_the_training_rows():
    values = np.random.default_rng(0).normal(50, 7, 200)
    prepared = data.prepare(table(200, size=values), "y")
    train = values[prepared.rows.train]
    at = prepared.feature_names.index("size")
    np.testing.assert_allclose(prepared.x_train[:, at], (train - train.mean()) / train.std(), rtol=1e-5, atol=1e-6)
    test = values[prepared.rows.test]
    np.testing.assert_allclose(prepared.x_test[:, at], (test - train.mean()) / train.std(), rtol=1e-5, atol=1e-6)


def test_gaps_take_the_training_median_and_a_flag():
    sizes = [float(i) if i % 4 else None for i in range(100)]
    prepared = data.prepare(table(100, size=sizes), "y")
    fitted = column(prepared.preparation, "size")
    train = [sizes[row] for row in prepared.rows.train if sizes[row] is not None]
    assert fitted.scale.median == np.median(train)
    at = prepared.feature_names.index("size (missing)")
    gaps = np.array([sizes[row] is None for row in prepared.rows.train])
    np.testing.assert_array_equal(prepared.x_train[:, at], gaps)
    expected = np.float32((fitted.scale.median - fitted.scale.mean) / fitted.scale.deviation)
    np.testing.assert_allclose(prepared.x_train[gaps, at - 1], expected, rtol=1e-6)
    assert "1 with gaps: filled by the training median" in prepared.summary[1]
    plain = data.prepare(table(100, size=sizes), "y", flag_missing=False)
    assert plain.feature_names == ("x", "size")
    assert any("25 cells missing, filled by the training median" in note for note in plain.notes)


def test_infinite_numbers_are_gaps_and_said():
    sizes = [float(i % 17) for i in range(100)]
    sizes[3], sizes[4] = math.inf, -math.inf
    prepared = data.prepare(table(100, size=sizes), "y")
    assert np.isfinite(prepared.x_train).all()
    assert any("size: 2 cells infinite, treated as missing" in note for note in prepared.notes)


def test_text_among_numbers_is_said_with_line_and_value():
    text = "x,size,y\n" + "".join(f"{math.sin(i):.3f},{i % 23},{'ab'[math.sin(i) > 0]}\n" for i in range(100))
    lines = text.splitlines()
    lines[41] = lines[41].replace(f",{40 % 23},", ",abc,")
    source = parsing_table("\n".join(lines))
    prepared = data.prepare(source, "y")
    note = next(note for note in prepared.notes if note.startswith("size"))
    assert note == 'size: 1 cell with text where a number should be, treated as missing, "abc" in line 42'


def parsing_table(text):
    from chainrule.data.delimited import parse

    return parse(text.encode(), "toy.csv", [])


def test_a_word_for_unknown_among_numbers_is_a_gap():
    sizes = ["unknown" if i % 4 == 0 else str(i % 30) for i in range(200)]
    assert isinstance(column(Preparation.fit(table(200, size=sizes), "y"), "size"), NumberColumn)


def test_many_texts_among_numbers_make_categories_and_say_so():
    sizes = [["small", "medium", "large", "tiny", "1", "2", "3", "4", "5", "6"][i % 10] for i in range(200)]
    preparation = Preparation.fit(table(200, size=sizes), "y")
    assert isinstance(column(preparation, "size"), CategoryColumn)
    note = next(note for note in preparation.notes if note.startswith("size"))
    assert "texts such as" in note and "taken as categories" in note


def test_dates_become_parts():
    sold = [f"{2019 + i % 2}-{1 + i % 12:02}-{1 + i % 28:02} {i % 24:02}:30:00" for i in range(100)]
    prepared = data.prepare(table(100, sold=sold), "y")
    assert prepared.feature_names[1:] == ("sold year", "sold month", "sold day of week", "sold hour", "sold days")
    row = int(prepared.rows.train[0])
    fitted = column(prepared.preparation, "sold")
    scale = fitted.scales[fitted.parts.index("hour")]
    hour = prepared.x_train[0, prepared.feature_names.index("sold hour")]
    assert hour == pytest.approx((row % 24 + 0.5 - scale.mean) / scale.deviation, rel=1e-5)


def test_ambiguous_dates_are_said():
    sold = [f"{1 + i % 12}/{1 + i % 11}/2020" for i in range(100)]
    assert any("month/day/year" in note for note in data.prepare(table(100, sold=sold), "y").notes)


def test_categories_rare_limited_and_unseen():
    towns = [f"town {min(i % 40, 30)}" for i in range(400)]
    towns[7], towns[8] = "hamlet", "farm"
    preparation = Preparation.fit(table(400, town=towns), "y", most_levels=12)
    fitted = column(preparation, "town")
    assert len(fitted.levels) == 12 and fitted.other
    assert fitted.feature_names[-1] == "town = (other)"
    notes = []
    x = preparation.transform(data.Table.of({"x": [0.0, 0.0], "town": ["town 30", "Rome"]}, "new.csv"), notes)
    assert x[:, 1:].sum(1).tolist() == [1, 1] and x[1, -1] == 1
    assert any('unseen category, encoded as (other), "Rome" in row 1' in note for note in notes)
    few = Preparation.fit(table(100, town=strings(["a", "b"], 100)), "y")
    assert few.transform(data.Table.of({"x": [0.0], "town": ["c"]})).tolist()[0][1:] == [0, 0]


def test_whole_numbers_are_one_category_however_written():
    preparation = Preparation.fit(table(100, code=strings(["3", "4.0", "5"], 100)), "y", kinds={"code": "category"})
    assert column(preparation, "code").levels == ("3", "4", "5")
    x = preparation.transform(data.Table.of({"x": [0.0] * 3, "code": [3.0, 4.0, 5.0]}))
    np.testing.assert_array_equal(x[:, 1:], np.eye(3))


def test_far_numbers_are_held_and_said():
    preparation = Preparation.fit(table(), "y")
    notes = []
    x = preparation.transform(data.Table.of({"x": [1e300, -1e300, 0.5]}), notes)
    assert x[:2, 0].tolist() == [1e6, -1e6] and abs(x[2, 0]) < 10
    assert any("2 cells lying more than a million standard deviations" in note for note in notes)


# Targets


def test_task_is_inferred():
    rows = 100
    random = np.random.default_rng(0)

    def task(values, **options):
        return Preparation.fit(data.Table.of({"x": random.normal(size=rows), "y": values}), "y", **options).task

    assert task(strings(["a", "b"], rows)) == "binary"
    assert task(strings(["a", "b", "c"], rows)) == "multiclass"
    assert task(strings([0, 1], rows)) == "binary"
    assert task(strings([0.0, 1.0, 2.0], rows)) == "multiclass"
    assert task(strings(["1", "2", "3"], rows)) == "multiclass"
    assert task(strings([True, False], rows)) == "binary"
    assert task(random.normal(size=rows)) == "regression"
    assert task(random.integers(0, 500, rows)) == "regression"
    assert task(strings([1, 2, 3], rows), task="regression") == "regression"
    assert task(strings([0, 1], rows), task="multiclass") == "multiclass"
    with pytest.raises(ConfigError, match="Tasks: binary"):
        task(strings([0, 1], rows), task="classification")
    with pytest.raises(DataError, match="3 classes"):
        task(strings([0, 1, 2], rows), task="binary")
    with pytest.raises(DataError, match='"a" in row 0'):
        task(strings(["a", "b"], rows), task="regression")


def test_whole_numbers_as_classes_are_said():
    source = data.Table.of({"x": np.random.default_rng(0).normal(size=60), "quality": strings([3, 4, 10], 60)})
    prepared = data.prepare(source, "quality")
    assert prepared.class_names == ("3", "4", "10")  # as numbers, not as texts
    assert any('task="regression"' in note for note in prepared.notes)


def test_classes_round_trip():
    prepared = data.prepare(table(), "y")
    assert prepared.class_names == ("no", "yes")
    labels = table().frame["y"].to_numpy()
    assert prepared.preparation.decode_prediction(prepared.y_test).tolist() == labels[prepared.rows.test].tolist()
    assert prepared.preparation.decode_prediction(np.eye(2)).tolist() == ["no", "yes"]
    np.testing.assert_array_equal(prepared.preparation.encode_target(table()), labels == "yes")
    with pytest.raises(ConfigError, match="scores"):
        prepared.preparation.decode_prediction(np.array([0.2, 0.7]))


def test_regression_round_trip():
    values = np.random.default_rng(0).normal(1000, 30, 100)
    prepared = data.prepare(data.Table.of({"x": np.sin(values), "y": values}), "y")
    assert prepared.y_train.shape == (80, 1) and prepared.y_train.dtype == np.float32
    assert abs(prepared.y_train.mean()) < 1e-6 and prepared.y_train.std() == pytest.approx(1, rel=1e-5)
    decoded = prepared.preparation.decode_prediction(prepared.y_test)
    np.testing.assert_allclose(decoded, values[prepared.rows.test], rtol=1e-6)


def test_rows_without_a_target_are_left_out_and_said():
    y = strings(["a", "b"], 50)
    y[3] = y[10] = None
    prepared = data.prepare(data.Table.of({"x": np.arange(50.0) ** 2, "y": y}), "y")
    assert sum(map(len, prepared.rows)) == 48
    assert not {3, 10} & set(np.concatenate(prepared.rows).tolist())
    assert any("2 rows left out where it is missing (row 3" in note for note in prepared.notes)


def fails(columns, target="y", **options):
    with pytest.raises(DataError) as info:
        Preparation.fit(data.Table.of(columns, "toy.csv"), target, **options)
    message = str(info.value)
    assert "toy.csv" in message
    return message


def test_targets_that_cannot_be_learned():
    x = np.random.default_rng(0).normal(size=20)
    assert 'no column "prise". Did you mean "price"?' in fails({"x": x, "price": x}, "prise")
    assert "Columns: x and price" in fails({"x": x, "price": x}, "prise")
    assert "which column" in fails({"x": x, "price": x}, None)
    assert 'one class only ("a" in every row)' in fails({"x": x, "y": ["a"] * 20})
    assert "nothing to learn" in fails({"x": x, "y": [2.5] * 20})
    assert "no value in any row" in fails({"x": x, "y": [None] * 20})
    assert "looks like an identifier" in fails({"x": x, "y": [f"name {i}" for i in range(20)]})
    message = fails({"x": x, "y": [*strings(["a", "b"], 19), "c"]})
    assert '"c" in row 19' in message and "single example" in message
    assert "holds dates" in fails({"x": x, "y": [f"2020-01-{1 + i:02}" for i in range(20)]})
    assert "4 rows" in fails({"x": x[:4], "y": ["a", "b", "a", "b"]})
    assert '4 rows with a target "y"' in fails({"x": x, "y": ["a", "b", "a", "b", *[None] * 16]})
    assert '"y" only' in fails({"y": strings(["a", "b"], 20)})
    message = fails({"name": [f"n {i}" for i in range(20)], "same": ["s"] * 20, "y": strings(["a", "b"], 20)})
    assert "no column left" in message and "name: unique in every row" in message


def test_an_unknown_target_recalls_that_the_header_was_guessed():
    source = parsing_table("5.1,3.5,setosa\n4.9,3.0,setosa\n")
    with pytest.raises(DataError, match=r'no column "species"(.|\n)*looks like data(.|\n)*header=True'):
        Preparation.fit(source, "species")


def test_rare_classes_can_be_left_out():
    y = [*strings(["a", "b"], 19), "c"]
    prepared = data.prepare(data.Table.of({"x": np.sin(np.arange(20.0)), "y": y}), "y", drop_rare_classes=True)
    assert prepared.class_names == ("a", "b")
    assert sum(map(len, prepared.rows)) == 19
    assert any('"c" in row 19' in note for note in prepared.notes)


def test_the_target_may_go_without_saying():
    x = np.random.default_rng(0).normal(size=40)
    assert Preparation.fit(data.Table.of({"x": x, "Label": strings(["a", "b"], 40)})).target_name == "Label"
    assert Preparation.fit(data.read("iris")).target_name == "species"


# Predicting


def test_transform_equals_what_was_trained_on():
    source = table(100, size=strings(["1", "2", "?"], 100), city=strings(["a", "b", "c"], 100))
    prepared = data.prepare(source, "y")
    x = prepared.preparation.transform(data.Table.of(source.frame.drop("y")))
    for part, rows in zip((prepared.x_train, prepared.x_validation, prepared.x_test), prepared.rows, strict=True):
        np.testing.assert_array_equal(x[rows], part)


def test_missing_and_extra_columns():
    preparation = Preparation.fit(table(100, size=strings([1.5, 2.5], 100)), "y")
    with pytest.raises(DataError) as info:
        preparation.transform(data.Table.of({"x": [1.0], "Size": [2.0]}, "new.csv"))
    assert '"size"' in str(info.value) and 'Is it "Size" for "size"' in str(info.value) and "new.csv" in str(info.value)
    notes = []
    preparation.transform(data.Table.of({"size": [2.0], "colour": ["red"], "x": [1.0], "y": [None]}, "new.csv"), notes)
    assert notes == ["new.csv: 1 column unknown to training, ignored: colour"]


def test_a_column_of_another_kind_is_an_error():
    preparation = Preparation.fit(table(), "y")
    with pytest.raises(DataError, match=r'new\.csv: column "x" should hold numbers.*"abc" in row 0'):
        preparation.transform(data.Table.of({"x": ["abc"]}, "new.csv"))
    with pytest.raises(DataError, match="List"):
        preparation.transform(data.Table.of({"x": [[1.0, 2.0]]}, "new.csv"))


def test_select_and_encode_target_for_evaluation():
    preparation = Preparation.fit(table(), "y")
    new = data.Table.of({"x": [1.0, -1.0, 2.0, 3.0], "y": ["yes", "no", None, "perhaps"]}, "new.csv")
    notes = []
    x, y = preparation.select(new, notes)
    assert x.shape == (2, 1) and y.tolist() == [1, 0]
    assert any("2 rows left out" in note and '"perhaps"' in note for note in notes)
    with pytest.raises(DataError, match="2 rows without a usable target"):
        preparation.encode_target(new)


def test_columns_may_be_called_as_patterns_are():
    columns = {name: [i % n for i in range(40)] for name, n in (("*", 5), ("^a.*$", 7), ("ab", 3))}
    columns["y"] = ["p", "q"] * 20
    frame = pl.DataFrame(columns, schema_overrides={"y": pl.Categorical})
    assert data.prepare(frame, "y").feature_names == ("*", "^a.*$", "ab")


# Images


def images(rows=40, dtype=np.uint8, **options):
    x = np.random.default_rng(0).integers(0, 256, (rows, 4, 3)).astype(dtype)
    return data.Images(x, np.arange(rows) % 4, **options)


def test_bytes_of_images_stay_bytes():
    prepared = data.prepare(images())
    assert prepared.image_shape == (4, 3)
    assert prepared.x_train.dtype == np.uint8
    np.testing.assert_array_equal(prepared.x_train, images().x[prepared.rows.train])
    assert prepared.preparation.pixel_scale == 255
    assert data.prepare(images(maximum=16.0)).preparation.pixel_scale == 16
    assert prepared.summary[0] == "images   40 images 4×3   target label (multiclass, 4 classes)"
    assert prepared.feature_names[5] == "pixel 1,2"
    assert prepared.class_names == ("0", "1", "2", "3")


def test_other_pixels_are_standardised_or_kept():
    wide = data.prepare(images(dtype=np.float64))
    assert wide.x_train.mean() == pytest.approx(0, abs=1e-6) and wide.x_train.std() == pytest.approx(1, rel=1e-5)
    assert wide.x_train.dtype == np.float32 and wide.preparation.pixel_scale == 1
    source = images()
    unit = data.prepare(replace(source, x=source.x / np.float32(255)))
    np.testing.assert_array_equal(unit.x_test, source.x[unit.rows.test] / np.float32(255))


def test_a_network_for_bytes_takes_the_same_pixels_as_other_numbers():
    """They are in the units of the bytes: the network divides by 255 whatever the dtype."""
    preparation = Preparation.fit(images())
    x = preparation.transform(replace(images(), x=images().x.astype(np.float64)))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, images().x)


def test_the_test_part_of_the_source_is_kept():
    prepared = data.prepare(images(test_rows=10))
    assert prepared.rows.test.tolist() == list(range(30, 40))
    assert len(prepared.rows.validation) == round(30 / 9)
    assert "test part of the source" in prepared.summary[2]


def test_images_that_cannot_be_learned():
    source = images(dtype=np.float32)
    source.x[7, 0, 0] = np.nan
    with pytest.raises(DataError, match="image 7"):
        data.prepare(source)
    with pytest.raises(DataError, match="no labels"):
        data.prepare(replace(images(), y=None))
    with pytest.raises(DataError, match="nothing to learn"):
        data.prepare(replace(images(), x=np.zeros((40, 4, 3), np.uint8)))
    preparation = Preparation.fit(images())
    with pytest.raises(DataError, match=r"shape \(2, 2\)"):
        preparation.transform(data.Images(np.zeros((1, 2, 2)), None))
    with pytest.raises(DataError, match="holds a table"):
        preparation.transform(table())
    with pytest.raises(DataError, match="holds images"):
        Preparation.fit(table(), "y").transform(images())


def test_images_may_have_many_classes():
    source = data.Images(np.random.default_rng(0).integers(0, 9, (600, 2, 2), np.uint8), np.arange(600) % 62)
    assert Preparation.fit(source).task == "multiclass"


# JSON


SHIPPED = [data.read(name) for name in data.names()]


@pytest.mark.parametrize("source", SHIPPED, ids=data.names())
def test_json_round_trip_of_shipped_sets(source):
    one = data.prepare(source)
    two = Preparation.from_json(one.preparation.to_json())
    assert two == one.preparation
    again = two.apply(source)
    for name in ("x_train", "y_train", "x_validation", "y_validation", "x_test", "y_test"):
        before, after = getattr(one, name), getattr(again, name)
        assert before.dtype == after.dtype and before.tobytes() == after.tobytes()
    assert (one.summary, one.notes) == (again.summary, again.notes)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"format": "other", "version": 1}', '{"format": "chainrule preparation", "version": 1}'],
)
def test_foreign_json_is_refused(text):
    with pytest.raises(CheckpointError, match="no preparation"):
        Preparation.from_json(text)


def test_newer_json_is_refused():
    newer = json.loads(Preparation.fit(data.read("iris")).to_json()) | {"version": 3}
    with pytest.raises(CheckpointError, match="update chainrule"):
        Preparation.from_json(json.dumps(newer))


def test_json_of_flattened_images_is_refused():
    older = json.loads(Preparation.fit(images()).to_json()) | {"version": 1}
    with pytest.raises(CheckpointError, match="train anew"):
        Preparation.from_json(json.dumps(older))
