"""The features of a whole table, or of images: what the columns, or the pixels, become together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.data import columns as col
from chainrule.data.arrays import Images
from chainrule.data.columns import Column
from chainrule.data.findings import Findings, close_name, counted, listed, naming
from chainrule.data.kinds import Ignored, Options, fit_column, unreadable
from chainrule.data.tables import Table
from chainrule.errors import DataError

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class TableFeatures:
    """The fitted columns of a table, in its order, and the columns that are left out with the reason."""

    columns: tuple[Column, ...]
    ignored: dict[str, str]

    @classmethod
    def fit(
        cls, table: Table, rows: NDArray[np.int64], target: str, options: Options, notes: list[str]
    ) -> "TableFeatures":
        """Fitted to the training rows alone. Raises DataError if no column is left to learn from."""
        names = [name for name in table.columns if name != target]
        if not names:
            raise DataError(
                f'{table.name} has the one column "{target}" only: nothing to learn it from. '
                f"If the columns ran together, give the separator."
            )
        fitted: dict[str, Column | Ignored] = {}
        for name in names:
            first = name == table.columns[0]
            with naming(table.name):
                # One by one: a selection of several takes names such as `*` for patterns.
                fitted[name] = fit_column(name, table.frame[name][rows], rows, first, options, notes)
        columns = tuple(column for column in fitted.values() if not isinstance(column, Ignored))
        ignored = {name: column.reason for name, column in fitted.items() if isinstance(column, Ignored)}
        if columns:
            return cls(columns, ignored)
        if any(isinstance(column, Ignored) and column.counter for column in fitted.values()):
            keep = Options(options.kinds, options.flag_missing, options.most_levels, options.decimal, True)
            return cls.fit(table, rows, target, keep, notes)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(ignored.items())[:6])
        more = f"; and {len(ignored) - 6:,} more" if len(ignored) > 6 else ""
        raise DataError(
            f"{table.name} has no column left to learn from ({reasons}{more}). "
            f'kinds={{"column": "category"}} or "number" keeps a column all the same.'
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def encode(self, table: Table, findings: Findings) -> Matrix:
        """Features (rows, features). Raises DataError for missing columns and cells of a wholly other kind."""
        self.require(table)
        result = np.empty((table.rows, len(self.feature_names)), np.float32)
        begin = 0
        for column in self.columns:
            series = table.frame[column.name]
            if unreadable(series) and series.null_count() < len(series):
                what = f"{series.dtype} values, but should hold {column.kind} cells"
                raise DataError(f'{table.name}: column "{column.name}" holds {what}.')
            width = len(column.feature_names)
            with naming(table.name):
                result[:, begin : begin + width] = column.encode(series, table.decimal, findings)
            begin += width
        return result

    def require(self, table: Table) -> None:
        """Raise DataError, with names that may have been meant, if a column is missing."""
        lacking = [column.name for column in self.columns if column.name not in table.columns]
        if not lacking:
            return
        spare = [name for name in table.columns if name not in {column.name for column in self.columns}]
        hints = []
        for name in lacking[:5]:
            close = close_name(name, spare)
            hints += [f'"{close}" for "{name}"'] if close else []
        hint = f" Is it {listed(hints)}?" if hints else ""
        raise DataError(
            f"{table.name} lacks {counted(len(lacking), 'column')} that the model was trained on: "
            f"{listed(lacking, quote=True)}.{hint}\nIt has: {listed(table.columns, 12)}."
        )

    def extra(self, table: Table, target: str) -> list[str]:
        """Columns of the table that training did not have."""
        known = {column.name for column in self.columns} | set(self.ignored) | {target}
        return [name for name in table.columns if name not in known]

    def summary(self) -> str:
        """The kinds of columns in one line, such as `8 numeric · 1 category (5 levels) · 1 ignored: id (...)`."""
        parts = []
        numeric = [column for column in self.columns if isinstance(column, col.NumberColumn)]
        if numeric:
            gaps = sum(column.flag for column in numeric)
            filled = f" ({gaps:,} with gaps: filled by the training median)" if gaps else ""
            parts.append(f"{len(numeric):,} numeric{filled}")
        truths = [column for column in self.columns if isinstance(column, col.BooleanColumn)]
        if truths:
            parts.append(f"{len(truths):,} yes/no")
        categories = [column for column in self.columns if isinstance(column, col.CategoryColumn)]
        if categories:
            levels = sum(len(column.levels) for column in categories)
            parts.append(f"{counted(len(categories), 'category', 'categories')} ({counted(levels, 'level')})")
        times = [column for column in self.columns if isinstance(column, col.DateColumn)]
        if times:
            parts.append(f"{counted(len(times), 'date')} ({listed(dict.fromkeys(p for c in times for p in c.parts))})")
        if self.ignored:
            shown = [f"{name} ({reason})" for name, reason in self.ignored.items()]
            more = f", and {len(shown) - 4:,} more" if len(shown) > 4 else ""
            parts.append(f"{len(shown):,} ignored: {', '.join(shown[:4])}{more}")
        return " · ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"kind": "table", "columns": [col.to_json(column) for column in self.columns], "ignored": self.ignored}


@dataclass(frozen=True)
class ImageFeatures:
    """Pixels, all scaled alike: (pixel - mean) / deviation.

    Bytes stay bytes, and scaling them is left to the network (`raw`): so images take no more memory than they have to.
    Pixels of other dtypes are scaled here, in float64.
    """

    image_shape: tuple[int, ...]
    mean: float
    deviation: float
    raw: bool

    @classmethod
    def fit(cls, images: Images, rows: NDArray[np.int64]) -> "ImageFeatures":
        """Known ranges are brought to 0 to 1, floats in -1 to 1 stay, others are standardised by the training pixels.

        Raises DataError for pixels that are not finite, and for images that are all of one value.
        """
        pixels = images.x
        require_finite(images)
        train = pixels[rows]
        low, high = float(train.min()), float(train.max())
        if low == high:
            raise DataError(f"{images.name}: every pixel of every training image is {low:g}: nothing to learn from.")
        raw = pixels.dtype == np.uint8
        if images.maximum is not None or raw:
            return cls(images.image_shape, 0.0, images.maximum or 255.0, raw)
        if pixels.dtype.kind in "fb" and low >= -1 and high <= 1:
            return cls(images.image_shape, 0.0, 1.0, raw)
        scale = col.Scale.fit(train.astype(np.float64).ravel())
        if scale is None:
            raise DataError(f"{images.name}: the pixels vary too little to be scaled.")
        return cls(images.image_shape, scale.mean, scale.deviation, raw)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per pixel, by its place in the image."""
        return tuple(f"pixel {','.join(map(str, place))}" for place in np.ndindex(self.image_shape))

    def encode(self, images: Images, findings: Findings) -> NDArray[Any]:
        """Images (rows, *image_shape): bytes as they are, or float32. Raises DataError for another shape, and NaN."""
        if images.image_shape != self.image_shape:
            raise DataError(
                f"{images.name} has images of shape {images.image_shape}; the model was trained on {self.image_shape}."
            )
        require_finite(images)
        if self.raw:
            return images.x if images.x.dtype == np.uint8 else images.x.astype(np.float32)
        result = np.empty(images.x.shape, np.float32)
        for begin in range(0, images.rows, 1024):  # in float64 without holding all of it
            pixels = images.x[begin : begin + 1024].astype(np.float64)
            standard = (pixels * 0.5 - self.mean * 0.5) / self.deviation * 2
            result[begin : begin + 1024] = standard.clip(-col.MOST_DEVIATIONS, col.MOST_DEVIATIONS)
        return result

    def summary(self) -> str:
        """The images in one line."""
        shift = f"less {self.mean:.4g}, " if self.mean else ""
        return f"{np.prod(self.image_shape):,} pixels, {shift}divided by {self.deviation:.4g}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": "images",
            "image_shape": list(self.image_shape),
            "mean": self.mean,
            "deviation": self.deviation,
            "raw": self.raw,
        }


def require_finite(images: Images) -> None:
    """Raise DataError for pixels that are NaN or infinite."""
    if images.x.dtype.kind == "f" and not np.isfinite(images.x).all():
        bad = int(np.flatnonzero(~np.isfinite(images.x.reshape(images.rows, -1)).all(1))[0])
        raise DataError(f"{images.name}: {images.where(bad)} holds pixels that are not finite numbers.")


Features = TableFeatures | ImageFeatures


def from_json(data: dict[str, Any]) -> Features:
    """The features that `to_json` wrote."""
    if data["kind"] == "images":
        return ImageFeatures(tuple(data["image_shape"]), data["mean"], data["deviation"], bool(data["raw"]))
    if data["kind"] == "table":
        return TableFeatures(tuple(col.from_json(column) for column in data["columns"]), dict(data["ignored"]))
    raise ValueError(f"unknown kind of features {data['kind']!r}")
