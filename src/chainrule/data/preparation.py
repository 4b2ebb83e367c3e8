"""From a table or images to the arrays that training takes: split, encoded, scaled, fitted to the training rows."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.data import features as feat
from chainrule.data import parsing, targets
from chainrule.data.arrays import Images, Source, Tabular, as_source
from chainrule.data.columns import Scale, labels
from chainrule.data.features import Features, ImageFeatures, TableFeatures
from chainrule.data.findings import Findings, counted, listed, naming
from chainrule.data.kinds import MOST_LEVELS, Kind, Options
from chainrule.data.shipped import Task
from chainrule.data.splits import Split, check_fractions, split
from chainrule.data.tables import Decimal, Table
from chainrule.data.targets import Classes, Target, Values, find_target, target_series
from chainrule.errors import CheckpointError, DataError

FORMAT = "chainrule preparation"
VERSION = 2
FEWEST_ROWS = 5


@dataclass(frozen=True, eq=False)
class Prepared:
    """Arrays to train on, and what was done to get them.

    x_*: float32 (rows, features); for images (rows, *image_shape), as bytes where they came as bytes: dividing these
    by `preparation.pixel_scale` is left to the network. y_*: int64 (rows,) class numbers, or float32 (rows, 1)
    standardised numbers for regression. `rows` gives the row of the source behind every row of a part. `summary` are
    three lines for a person, `notes` one sentence per repair or finding.

    >>> from chainrule import data
    >>> prepared = data.prepare(data.read("digits"))
    >>> prepared.x_train.shape, prepared.x_train.dtype, prepared.preparation.pixel_scale
    ((1437, 8, 8), dtype('uint8'), 16.0)
    >>> prepared.y_train.shape, prepared.task
    ((1437,), 'multiclass')
    """

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_validation: NDArray[Any]
    y_validation: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    rows: Split
    preparation: "Preparation"
    notes: tuple[str, ...]
    summary: tuple[str, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per column of x."""
        return self.preparation.feature_names

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers; empty for regression."""
        return self.preparation.class_names

    @property
    def task(self) -> Task:
        """Binary, multiclass or regression."""
        return self.preparation.task

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """The shape of one image; None for tables."""
        return self.preparation.image_shape


@dataclass(frozen=True)
class Preparation:
    """What was fitted: enough to split the same source again, and to encode new rows and decode predictions.

    >>> from chainrule import data
    >>> preparation = data.Preparation.fit(data.read("iris"))
    >>> preparation.task, preparation.class_names
    ('multiclass', ('setosa', 'versicolor', 'virginica'))
    >>> x = preparation.transform(data.read("iris"))
    >>> x.shape, x.dtype
    ((150, 4), dtype('float32'))
    """

    target_name: str
    target: Target
    features: Features
    seed: int
    validation: float
    test: float
    decimal: Decimal | None = None
    drop_rare_classes: bool = False
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        source: Tabular,
        target: str | None = None,
        *,
        task: Task | None = None,
        kinds: Mapping[str, Kind] | None = None,
        validation: float = 0.1,
        test: float = 0.1,
        seed: int = 0,
        flag_missing: bool = True,
        most_levels: int = MOST_LEVELS,
        drop_rare_classes: bool = False,
    ) -> "Preparation":
        """Judge the target, split the rows, and fit every column (or the pixels) to the training rows alone.

        target: the column to learn; None where the source knows it. task: overrides what the target suggests. kinds:
        column → "number", "category", "boolean", "date" or "ignore", overrides what its cells suggest. validation,
        test: shares of the rows; a source with a test part of its own keeps that one. flag_missing: add a feature that
        says where a cell was missing. most_levels: categories with a feature of their own. drop_rare_classes: leave
        out classes with a single example instead of raising.

        Raises DataError for what cannot be learned from, ConfigError for options that make no sense.
        """
        check_fractions(validation, test)
        source = as_source(source)
        name = find_target(source, target)
        series, decimal = target_series(source, name), getattr(source, "decimal", None)
        if isinstance(source, Images) and task is None and series.dtype.is_integer():
            task = "binary" if series.n_unique() == 2 else "multiclass"  # labels of images are classes, however many
        with naming(source.name):
            judged = targets.judge(name, series, task, decimal, source.where)
        notes = list(judged.notes)
        fitted: Target
        if judged.task == "regression":
            require_rows(source, judged.usable, name)
            parts = split_source(source, judged.usable, None, seed, validation, test)
            with naming(source.name):
                fitted = targets.fit_values(name, judged.numbers[parts.train])
        else:
            with naming(source.name):
                fitted, numbers, usable, more = targets.class_numbers(name, judged, drop_rare_classes, source.where)
            notes += more
            require_rows(source, usable, name)
            parts = split_source(source, usable, numbers, seed, validation, test)
        features: Features
        if isinstance(source, Images):
            features = ImageFeatures.fit(source, parts.train)
        else:
            options = Options(kinds or {}, flag_missing, most_levels, decimal)
            options.check(source.columns)
            features = TableFeatures.fit(source, parts.train, name, options, notes)
        return cls(name, fitted, features, seed, validation, test, decimal, drop_rare_classes, tuple(notes))

    @property
    def task(self) -> Task:
        """Binary, multiclass or regression."""
        return self.target.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers; empty for regression."""
        return self.target.names if isinstance(self.target, Classes) else ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per column of x."""
        return self.features.feature_names

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """The shape of one image; None for tables."""
        return self.features.image_shape if isinstance(self.features, ImageFeatures) else None

    @property
    def pixel_scale(self) -> float:
        """What the network has to divide pixels by: 255 for most bytes, and 1 where they are scaled already."""
        return self.features.deviation if isinstance(self.features, ImageFeatures) and self.features.raw else 1.0

    def apply(self, source: Tabular) -> Prepared:
        """The source that it was fitted to, split and encoded: the same rows and bits every time."""
        source = as_source(source)
        y, usable, _ = self.labelled(source)
        require_rows(source, usable, self.target_name)
        numbers = y if isinstance(self.target, Classes) else None
        parts = split_source(source, usable, numbers, self.seed, self.validation, self.test)
        findings = Findings(source.where)
        x = self.encoded(source, findings)
        return Prepared(
            x_train=x[parts.train],
            y_train=y[parts.train],
            x_validation=x[parts.validation],
            y_validation=y[parts.validation],
            x_test=x[parts.test],
            y_test=y[parts.test],
            rows=parts,
            preparation=self,
            notes=(*source.notes, *self.notes, *findings.sentences()),
            summary=summary(self, source, parts),
        )

    def transform(self, source: Tabular, notes: list[str] | None = None) -> NDArray[Any]:
        """What the network takes, for new rows; the target need not be there. What was noticed is added to `notes`.

        Raises DataError for missing columns, columns of another kind and images of another shape.
        """
        source = as_source(source)
        findings = Findings(source.where)
        x = self.encoded(source, findings)
        if isinstance(self.features, TableFeatures) and isinstance(source, Table) and notes is not None:
            extra = self.features.extra(source, self.target_name)
            if extra:
                what = counted(len(extra), "column")
                notes.append(f"{source.name}: {what} unknown to training, ignored: {listed(extra)}")
        if notes is not None:
            notes += findings.sentences()
        return x

    def encode_target(self, source: Tabular) -> NDArray[Any]:
        """The target of every row: int64 (rows,) class numbers, or float32 (rows, 1) standardised numbers.

        Raises DataError where a row has no target or a class that training did not have; `select` leaves such rows out.
        """
        source = as_source(source)
        y, usable, why = self.labelled(source)
        if not usable.all():
            row = int(np.flatnonzero(~usable)[0])
            raise DataError(
                f'{source.name}: {counted(int((~usable).sum()), "row")} without a usable target "{self.target_name}" '
                f"({why}), first in {source.where(row)}."
            )
        return y

    def select(self, source: Tabular, notes: list[str] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Features and targets of the rows that have a target which training knew, to evaluate on."""
        source = as_source(source)
        x = self.transform(source, notes)
        y, usable, why = self.labelled(source)
        if not usable.any():
            raise DataError(f'{source.name} has no row with a usable target "{self.target_name}" ({why}).')
        if notes is not None and not usable.all():
            places = listed((source.where(int(row)) for row in np.flatnonzero(~usable)), 3)
            notes.append(f"{source.name}: {counted(int((~usable).sum()), 'row')} left out, {why} ({places})")
        return x[usable], y[usable]

    def decode_prediction(self, prediction: ArrayLike) -> NDArray[Any]:
        """Class names from class numbers (rows,) or scores (rows, classes), or numbers in the units of the source.

        >>> from chainrule import data
        >>> preparation = data.Preparation.fit(data.read("iris"))
        >>> preparation.decode_prediction([[0.1, 0.7, 0.2], [0.9, 0.1, 0.0]]).tolist()
        ['versicolor', 'setosa']
        """
        return self.target.decode(prediction)

    def labelled(self, source: Source) -> tuple[NDArray[Any], NDArray[np.bool_], str]:
        """The encoded target, the rows where it is known, and what is wrong with the others."""
        series = target_series(source, find_target(source, self.target_name))
        if isinstance(self.target, Values):
            values = parsing.numbers(series, getattr(source, "decimal", None) or self.decimal).values
            known = ~np.isnan(values)
            return self.target.encode(values), known, "it is missing or no finite number"
        index = {label: i for i, label in enumerate(self.target.names)}
        text = labels(series).to_list()
        numbers = np.array([index.get(label, -1) for label in text], np.int64)
        unseen = list(dict.fromkeys(label for label in text if label is not None and label not in index))
        why = f"classes unknown to training: {listed(unseen, 3, quote=True)}" if unseen else "it is missing"
        return numbers, numbers >= 0, why

    def encoded(self, source: Source, findings: Findings) -> NDArray[Any]:
        """The features of a source of the kind that it was fitted to; DataError for another kind."""
        if isinstance(self.features, TableFeatures) and isinstance(source, Table):
            return self.features.encode(source, findings)
        if isinstance(self.features, ImageFeatures) and isinstance(source, Images):
            return self.features.encode(source, findings)
        wanted, got = ("images", "a table") if isinstance(source, Table) else ("a table", "images")
        raise DataError(f"{source.name} holds {got}, but the model was trained on {wanted}.")

    def to_json(self) -> str:
        """Everything as JSON text, without loss: numbers come back to the same bits."""
        target = {"kind": "classes" if isinstance(self.target, Classes) else "values", **asdict(self.target)}
        own = ("target_name", "seed", "validation", "test", "decimal", "drop_rare_classes", "notes")
        data = {"format": FORMAT, "version": VERSION, **{name: getattr(self, name) for name in own}}
        data |= {"target": target, "features": self.features.to_json()}
        return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Preparation":
        """The preparation that `to_json` wrote. Raises CheckpointError for anything else, or for a newer version.

        >>> from chainrule import data
        >>> preparation = data.Preparation.fit(data.read("wine"))
        >>> data.Preparation.from_json(preparation.to_json()) == preparation
        True
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT or not isinstance(data["version"], int):
                raise CheckpointError(f"this is no preparation of chainrule: its format is {data['format']!r}.")
            if data["version"] > VERSION:
                raise CheckpointError(
                    f"the preparation has version {data['version']}, but this chainrule reads up to {VERSION}: "
                    f"update chainrule."
                )
            if data["version"] < 2 and data["features"]["kind"] == "images":
                raise CheckpointError("it was made by an older chainrule, which stored images otherwise: train anew.")
            target = data["target"]
            fitted: Target
            if target["kind"] == "classes":
                fitted = Classes(target["task"], tuple(target["names"]))
            else:
                fitted = Values(Scale(**target["scale"]))
            own = {name: data[name] for name in ("seed", "validation", "test", "decimal", "drop_rare_classes")}
            features = feat.from_json(data["features"])
            return cls(data["target_name"], fitted, features, **own, notes=tuple(data["notes"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"this is no preparation of chainrule, or a damaged one: {error!r}.") from error


def prepare(source: Tabular, target: str | None = None, **options: Any) -> Prepared:
    """`Preparation.fit(...).apply(source)`: from a source to arrays in one call; see `Preparation.fit` for the options.

    >>> from chainrule import data
    >>> prepared = data.prepare(data.read("wine"), seed=1)
    >>> prepared.x_train.shape, prepared.x_validation.shape, prepared.x_test.shape
    ((142, 13), (18, 13), (18, 13))
    >>> print(*prepared.summary, sep="\\n")
    wine   178 rows × 14 columns   target cultivar (multiclass, 3 classes)
      13 numeric
      split 142 / 18 / 18 (seed 1)
    """
    source = as_source(source)
    return Preparation.fit(source, target, **options).apply(source)


def require_rows(source: Source, usable: NDArray[np.bool_], target: str) -> None:
    """Raise DataError for too few rows to split."""
    rows = int(usable.sum())
    if rows < FEWEST_ROWS:
        having = f' with a target "{target}"' if rows < source.rows else ""
        raise DataError(
            f"{source.name} has {counted(rows, 'row')}{having}: at least {FEWEST_ROWS} are needed to train, validate "
            f"and test, and hundreds to learn something that holds."
        )


def split_source(
    source: Source, usable: NDArray[np.bool_], labels: NDArray[Any] | None, seed: int, validation: float, test: float
) -> Split:
    """The usable rows in three parts; the source's own test part stays the test part."""
    own = usable[: source.rows - source.test_rows] if source.test_rows else usable
    rows, given = np.flatnonzero(own), np.flatnonzero(usable[len(own) :]) + len(own)
    if source.test_rows:
        validation, test = validation / (1 - test), 0.0
    part = split(seed, len(rows), None if labels is None else labels[rows], validation, test)
    test_rows = given if source.test_rows else rows[part.test]
    return Split(rows[part.train], rows[part.validation], test_rows)


def summary(preparation: Preparation, source: Source, parts: Split) -> tuple[str, ...]:
    """Three lines for a person: the source and target, the columns, the split."""
    classes = f", {len(preparation.class_names)} classes" if preparation.task == "multiclass" else ""
    if isinstance(source, Images):
        size = f"{source.rows:,} images {'×'.join(map(str, source.image_shape))}"
    else:
        size = f"{source.rows:,} rows × {counted(len(source.columns), 'column')}"
    sizes = " / ".join(f"{len(part):,}" for part in parts)
    kept = ", test part of the source" if source.test_rows else ""
    return (
        f"{source.name}   {size}   target {preparation.target_name} ({preparation.task}{classes})",
        f"  {preparation.features.summary()}",
        f"  split {sizes} (seed {preparation.seed}{kept})",
    )
