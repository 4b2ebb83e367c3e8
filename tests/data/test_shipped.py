"""The shipped data sets: complete, unscaled, and loaded without Polars."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chainrule import data
from chainrule.errors import DataError

SHAPES = {
    "breast_cancer": (569, 30, "binary"),
    "diabetes": (442, 10, "regression"),
    "digits": (1797, 64, "multiclass"),
    "iris": (150, 4, "multiclass"),
    "wine": (178, 13, "multiclass"),
}


def test_names_are_those_described():
    assert set(data.names()) == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_shape_dtype_and_names(name):
    rows, features, task = SHAPES[name]
    dataset = data.load(name)
    assert dataset.x.shape == (rows, features)
    assert dataset.x.dtype == np.float32
    assert np.isfinite(dataset.x).all()
    assert len(dataset.feature_names) == len(set(dataset.feature_names)) == features
    assert dataset.task == task
    assert dataset.y.shape == (rows,)
    assert dataset.description
    if task == "regression":
        assert dataset.y.dtype == np.float32 and dataset.target_names == ()
    else:
        assert dataset.y.dtype == np.int64
        assert set(dataset.y.tolist()) == set(range(len(dataset.target_names)))


def test_class_counts_are_those_of_the_sources():
    counts = {name: np.bincount(data.load(name).y).tolist() for name in ("breast_cancer", "iris", "wine")}
    assert counts == {"breast_cancer": [212, 357], "iris": [50, 50, 50], "wine": [59, 71, 48]}
    assert data.load("breast_cancer").target_names[0] == "malignant"


def test_published_summary_statistics():
    iris = data.load("iris").x
    np.testing.assert_allclose(iris.mean(0), [5.84, 3.05, 3.76, 1.20], atol=0.01)
    np.testing.assert_allclose(iris.min(0), [4.3, 2.0, 1.0, 0.1], atol=1e-6)
    wine = data.load("wine")
    assert wine.x[:, wine.feature_names.index("proline")].max() == 1680
    cancer = data.load("breast_cancer")
    assert cancer.x[:, cancer.feature_names.index("worst area")].max() == 4254
    digits = data.load("digits")
    assert (digits.x.min(), digits.x.max()) == (0, 16)
    assert (digits.x == np.round(digits.x)).all()


def test_diabetes_is_the_raw_file():
    diabetes = data.load("diabetes")
    age = diabetes.x[:, diabetes.feature_names.index("age")]
    assert (age.min(), age.max()) == (19, 79)
    assert set(diabetes.x[:, diabetes.feature_names.index("sex")].tolist()) == {1, 2}
    assert (diabetes.y.min(), diabetes.y.max()) == (25, 346)


def test_read_agrees_with_load():
    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        dataset, table = data.load(name), data.read(name)
        assert table.target == dataset.target
        assert table.columns == (*dataset.feature_names, dataset.target)
        x = table.frame.drop(dataset.target).cast(float).to_numpy()
        np.testing.assert_array_equal(x.astype(np.float32), dataset.x)
    digits = data.load("digits")
    images = data.read("digits")
    np.testing.assert_array_equal(images.x.reshape(-1, 64), digits.x)
    np.testing.assert_array_equal(images.y, digits.y)


def test_unknown_name_says_what_may_be_meant():
    with pytest.raises(DataError, match=r'"irs"(.|\n)*Did you mean "iris"'):
        data.load("irs")


def test_importing_and_loading_needs_no_polars():
    code = "import sys, chainrule.data as d; d.load('iris'); print('polars' in sys.modules)"
    root = Path(data.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"


def test_public_names_are_all_there():
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert dir(data) == sorted(data.__all__)
    with pytest.raises(AttributeError):
        data.nothing  # noqa: B018
