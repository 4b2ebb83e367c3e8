"""Properties of the preparation of tables that nobody would wish on anyone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import data
from chainrule.errors import ChainruleError, DataError

Preparation = data.Preparation


def strings(values, repeat):
    return [values[i % len(values)] for i in range(repeat)]


NASTY = st.sampled_from(
    ["", " ", "NA", "nan", "inf", "-inf", "1e400", "1,5", "1,234.5", "1.234,5", "$3", "5 %", "true", "no", "abc", "é",
     "\x00", "2020-01-01", "1/2/2020", "31/12/1999", "2020-02-30", "9" * 30, "-0", "1e-320", "None", "(missing)",
     "(other)", "−3"]
)  # fmt: skip
TEXTS = NASTY | st.text(max_size=4) | st.integers(-5, 5).map(str) | st.floats().map(repr)
FLOATS = st.none() | st.floats() | st.sampled_from([1e308, -1e308, 5e-324, 0.1, 0.1])
VALUES = st.sampled_from(["text", "few", "float", "integer", "boolean", "date", "same"])


@st.composite
def nasty_columns(draw, rows):
    kind = draw(VALUES)
    several = {"min_size": rows, "max_size": rows}
    if kind == "text":
        return draw(st.lists(st.none() | TEXTS, **several))
    if kind == "few":
        levels = draw(st.lists(TEXTS, min_size=1, max_size=4))
        return draw(st.lists(st.sampled_from(levels), **several))
    if kind == "float":
        return draw(st.lists(FLOATS, **several))
    if kind == "integer":
        return draw(st.lists(st.none() | st.integers(-(2**62), 2**62) | st.integers(0, 3), **several))
    if kind == "boolean":
        return draw(st.lists(st.none() | st.booleans(), **several))
    if kind == "date":
        return draw(st.lists(st.none() | st.dates(), **several))
    return [draw(TEXTS)] * rows


@st.composite
def nasty_tables(draw):
    rows = draw(st.integers(0, 40))
    name = st.text(max_size=5) | st.sampled_from(["id", "rows", "level", "y "])
    names = draw(st.lists(name, max_size=4, unique=True))
    columns = {name: draw(nasty_columns(rows)) for name in names if name != "y"}
    good = draw(st.booleans())
    target = strings(["a", "b", "a"], rows) if good else draw(nasty_columns(rows))
    return data.Table.of({**columns, "y": target}, "nasty")


@given(nasty_tables(), st.sampled_from([None, "binary", "multiclass", "regression"]), st.booleans())
@settings(deadline=None, max_examples=300)
def test_nasty_tables_prepare_or_raise_one_clear_error(source, task, flag):
    try:
        prepared = data.prepare(source, "y", task=task, flag_missing=flag, drop_rare_classes=flag)
    except ChainruleError as error:
        assert isinstance(error, DataError) and "nasty" in str(error)
        return
    for part in (prepared.x_train, prepared.x_validation, prepared.x_test):
        assert part.dtype == np.float32 and part.shape[1] == len(prepared.feature_names) and np.isfinite(part).all()
    for part in (prepared.y_train, prepared.y_validation, prepared.y_test):
        assert np.isfinite(part).all()
    preparation = prepared.preparation
    again = Preparation.from_json(preparation.to_json())
    assert again == preparation
    assert again.transform(source).tobytes() == preparation.transform(source).tobytes()
    assert again.apply(source).x_test.tobytes() == prepared.x_test.tobytes()


@given(nasty_tables(), nasty_tables())
@settings(deadline=None, max_examples=150)
def test_predicting_from_another_nasty_table(source, other):
    try:
        preparation = Preparation.fit(source, "y", drop_rare_classes=True)
    except DataError:
        return
    values = [series.to_list() for series in other.frame]
    mixed = {name: values[i % len(values)] for i, name in enumerate(source.columns)}
    try:
        x = preparation.transform(data.Table.of(mixed), [])
    except DataError:
        return
    assert x.shape == (other.rows, len(preparation.feature_names)) and np.isfinite(x).all()


@given(st.integers(20, 60), st.integers(0, 100), st.data())
@settings(deadline=None, max_examples=60)
def test_validation_and_test_rows_never_touch_what_is_fitted(rows, seed, draw):
    random = np.random.default_rng(seed)
    columns = {
        "number": [f"{value:.2f}" for value in random.normal(size=rows)],
        "gaps": [None if value < 0.2 else float(value) for value in random.random(rows)],
        "city": random.choice(["a", "b", "c", "d"], rows).tolist(),
        "when": [f"2020-01-{1 + int(day):02}" for day in random.integers(0, 28, rows)],
        "id": random.permutation(1000)[:rows].tolist(),
        "y": strings(["u", "v"], rows),
    }
    regression = draw.draw(st.booleans())
    if regression:
        columns["y"] = random.normal(size=rows).tolist()
    before = data.prepare(data.Table.of(columns), "y", seed=seed)
    held_out = [*before.rows.validation.tolist(), *before.rows.test.tolist()]
    for row in held_out:
        columns["number"][row] = draw.draw(st.sampled_from(["1e9", "abc", "", "inf", "3,5"]))
        columns["gaps"][row] = draw.draw(st.sampled_from([None, 1e12, -5.0]))
        columns["city"][row] = draw.draw(st.sampled_from(["zzz", "", "a"]))
        columns["when"][row] = draw.draw(st.sampled_from(["1999-12-31", "never", ""]))
        columns["id"][row] = 7
        if regression:
            columns["y"][row] = draw.draw(st.floats(-1e6, 1e6))
    after = data.prepare(data.Table.of(columns), "y", seed=seed)
    assert after.preparation.to_json() == before.preparation.to_json()
    assert after.x_train.tobytes() == before.x_train.tobytes()
    assert after.y_train.tobytes() == before.y_train.tobytes()
