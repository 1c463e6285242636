"""The splits of a data set in a common form: rows of numbers, with descriptions of the columns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnn.data._arrays import expect_labels, expect_native, expect_numbers
from fnn.data.tables import Table
from fnn.types import Pair

_CODE = 16  # elements of the code of a category
_LONG_CODE = 64  # with more than 64 categories, of which two of 2^16 codes are too often alike


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split. Categories have the same numbers in every split."""

    name: str
    rows: np.ndarray  # (n, features), in the dtype of the source
    shape: tuple[int, ...]  # of one example; two axes or more are an image or a sequence
    names: tuple[str, ...] = ()  # of the columns
    categorical: frozenset[int] = frozenset()  # columns of category numbers
    table: bool = False  # NaN means missing
    y: np.ndarray | None = None  # int (n,) of classes, or float (n, values)
    texts: tuple[str, ...] = ()
    strings: tuple[np.ndarray, ...] = ()  # the columns of texts or of categories, (n,) each

    @property
    def is_image(self) -> bool:
        """Whether the columns are positions of one image or sequence, with a common unit."""
        return len(self.shape) > 1

    @property
    def is_text(self) -> bool:
        return self.names == ("text",)

    @property
    def classes(self) -> np.ndarray | None:
        """The labels, if they are classes."""
        return self.y if self.y is not None and self.y.ndim == 1 else None

    def feature(self, column: int) -> str:
        """The name of a column."""
        if self.names:
            return self.names[column]
        if self.is_image:
            return str(tuple(map(int, np.unravel_index(column, self.shape))))
        return f"feature {column}"

    def features(self, columns: np.ndarray, most: int = 3) -> str:
        """The names of the first few columns, and the number of the others."""
        more = f" and {len(columns) - most} more" if len(columns) > most else ""
        return ", ".join(self.feature(i) for i in columns[:most].tolist()) + more

    def floats(self, rows: Any = slice(None), columns: Any = slice(None)) -> np.ndarray:
        """Floats (n, features) of at least 32 bits; non-finite ones become the column's mean."""
        x = np.array(self.rows[rows][:, columns], np.result_type(self.rows.dtype, np.float32))
        bad = ~np.isfinite(x)
        if bad.any():
            x[bad] = 0
            mean = x.sum(axis=0) / np.maximum((~bad).sum(axis=0), 1)
            x = np.where(bad, mean, x)
        return x


def comparable(first: Split, second: Split) -> bool:
    """Whether the examples of two splits have the same columns."""
    return first.shape == second.shape and first.names == second.names


def standardized(split: Split, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Features of mean 0 and variance 1, or 0 where they are constant; categories coded.

    Codes are random signs, such that two categories have an expected squared distance of 1, like
    two values that differ by a standard deviation.
    """
    numeric = [i for i in range(split.rows.shape[1]) if i not in split.categorical]
    x = split.floats(rows, numeric) if split.categorical else split.floats(rows)
    rounding = np.abs(x).max(axis=0, initial=0) * np.finfo(x.dtype).eps
    x = x - x.mean(axis=0)
    std = x.std(axis=0)
    x /= np.where(std > rounding, std, np.inf)
    codes = [_codes(split.rows[rows, i], rng) for i in sorted(split.categorical)]
    return np.concatenate([x, *codes], axis=1) if codes else x


def _codes(column: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values, inverse = np.unique(column, return_inverse=True)
    size = _CODE if len(values) <= 64 else _LONG_CODE
    signs = rng.integers(2, size=(len(values), size)) * 2.0 - 1
    return (signs / np.sqrt(2 * size))[inverse]


def splits_of(given: Mapping[str, Any]) -> tuple[Split, ...]:
    """The given splits in the common form.

    Raises: ValueError for no splits, other values than splits, an empty one, or labels of another
      length.
    """
    if not given:
        raise ValueError("audit: expected splits by name, got none; give {'train': (x, y)}")
    pairs = _of_one_kind({name: _pair(name, value) for name, value in given.items()})
    numbers = _category_numbers([x for x, _ in pairs.values()])
    labels = _labels({name: y for name, (_, y) in pairs.items() if y is not None})
    splits = tuple(_split(name, x, numbers, labels.get(name)) for name, (x, _) in pairs.items())
    for split in splits:
        if split.rows.size == 0:
            raise ValueError(
                f"audit: expected examples with features in {split.name!r}, got shape "
                f"{split.rows.shape}; drop it"
            )
        if split.y is not None and len(split.y) != len(split.rows):
            raise ValueError(
                f"audit: expected a label for each of {len(split.rows)} examples of "
                f"{split.name!r}, got {len(split.y)}; check how the split was made"
            )
    return splits


def _pair(name: str, value: Any) -> Pair:
    if isinstance(value, str):
        return (value,), None
    if isinstance(value, list | tuple | np.ndarray) and all(isinstance(v, str) for v in value):
        return value, None
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(
            f"audit: expected a batch (x, y) or texts for {name!r}, got a {type(value).__name__}; "
            "give (x, None) if there are no labels"
        )
    x, y = value
    expect_native("audit", x, f"x of {name!r}")
    return ((x,) if isinstance(x, str) else x), y


def _of_one_kind(pairs: dict[str, Pair]) -> dict[str, Pair]:
    """Converts a column that is categorical in the Table of one split to categories in all."""
    tables = [x for x, _ in pairs.values() if isinstance(x, Table)]
    categorical = {column for table in tables for column in table.categorical}

    def converted(x: Any) -> Any:
        mixed = categorical.intersection(x.numeric) if isinstance(x, Table) else ()
        return x.with_kinds(dict.fromkeys(mixed, "category")) if mixed else x

    return {name: (converted(x), y) for name, (x, y) in pairs.items()}


def _is_text(x: Any) -> bool:
    return not isinstance(x, Table) and len(x) > 0 and isinstance(x[0], str)


def _category_numbers(xs: list[Any]) -> dict[str, dict[str, int]]:
    """Column -> category -> its number in all splits; whole texts are the column ''."""
    seen: dict[str, set[str]] = {}
    for x in xs:
        if isinstance(x, Table):
            for name in x.categorical:
                seen.setdefault(name, set()).update(np.unique(x.columns[name]).tolist())
        elif _is_text(x):
            seen.setdefault("", set()).update(map(str, x))
    return {name: {value: i for i, value in enumerate(sorted(s))} for name, s in seen.items()}


def _split(name: str, x: Any, numbers: dict[str, dict[str, int]], y: np.ndarray | None) -> Split:
    if isinstance(x, Table):
        columns = [
            np.array([numbers[key][value] for value in column.tolist()], np.float64)
            if key in x.categorical
            else column
            for key, column in x.columns.items()
        ]
        names = tuple(x.columns)
        return Split(
            name=name, rows=np.stack(columns, axis=1), shape=(len(names),), names=names,
            categorical=frozenset(i for i, key in enumerate(names) if key in x.categorical),
            table=True, y=y, strings=tuple(x.columns[key] for key in x.categorical),
            texts=tuple(t for key in x.categorical for t in np.unique(x.columns[key]).tolist()),
        )  # fmt: skip
    if _is_text(x):
        rows = np.array([[numbers[""][str(text)]] for text in x], np.int64)
        return Split(
            name=name, rows=rows, shape=(1,), names=("text",), categorical=frozenset({0}),
            y=y, texts=tuple(map(str, x)), strings=(np.array(x, object),),
        )  # fmt: skip
    x = expect_numbers("audit", np.asarray(x), f"x of {name!r}")
    x = x.astype(np.float32) if x.dtype.kind not in "fiub" else x  # bfloat16
    shape = x.shape[1:] or (1,)
    return Split(name=name, rows=x.reshape(len(x), math.prod(shape)), shape=shape, y=y)


def _labels(ys: dict[str, Any]) -> dict[str, np.ndarray]:
    """Classes as integers from 0, values as floats of two axes."""
    arrays = {name: _label_array(name, y) for name, y in ys.items()}
    if not arrays:
        return {}
    whole = np.concatenate([y.reshape(len(y), -1) for y in arrays.values()])
    if whole.dtype.kind == "f" or (whole.shape[1] > 1 and whole.dtype.kind in "iub"):
        one_hot = whole.shape[1] > 1 and (np.sort(whole, axis=1)[:, :-1] == 0).all()
        one_hot = one_hot and (whole.max(axis=1) == 1).all()
        wide = {name: y.reshape(len(y), -1).astype(np.float64) for name, y in arrays.items()}
        return {name: y.argmax(axis=1) for name, y in wide.items()} if one_hot else wide
    names, inverse = np.unique(whole[:, 0], return_inverse=True)
    ends = np.cumsum([len(y) for y in arrays.values()])[:-1]
    # So many different integers are measurements, such as an age in days.
    many = len(names) > max(20, len(whole) / 10) and whole.dtype.kind in "iu"
    parts = np.split(whole[:, :1].astype(np.float64) if many else inverse, ends)
    return dict(zip(arrays, parts, strict=True))


def _label_array(name: str, y: Any) -> np.ndarray:
    array = np.asarray(y)
    if array.ndim == 0:
        raise ValueError(f"audit: expected a label for each example of {name!r}, got {y!r}")
    if array.dtype.kind in "OUST":
        array = expect_labels("audit", y, f"labels of {name!r}").astype(np.str_)
    return array
