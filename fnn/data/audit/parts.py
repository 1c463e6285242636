"""The parts of a data set in one form: rows of numbers, with what is known of their columns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnn.data._arrays import expect_labels, expect_native, expect_numbers
from fnn.data.tables import Table
from fnn.types import Pair


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split. Categories are numbered alike in every split.

    >>> Part(name='train', rows=np.zeros((2, 3)), shape=(3,)).feature(1)
    'feature 1'
    """

    name: str
    rows: np.ndarray  # (n, features), in the dtype of the source
    shape: tuple[int, ...]  # of one example; two axes or more are an image, or a sequence
    names: tuple[str, ...] = ()  # of the columns
    categorical: frozenset[int] = frozenset()  # columns whose numbers only name something
    table: bool = False  # where NaN stands for what is missing
    y: np.ndarray | None = None  # int (n,) of classes, or float (n, values)
    texts: tuple[str, ...] = ()
    strings: tuple[np.ndarray, ...] = ()  # the columns of texts or of categories, (n,) each

    @property
    def images(self) -> bool:
        """Whether the columns are places of one image or sequence, with a unit in common."""
        return len(self.shape) > 1

    @property
    def classes(self) -> np.ndarray | None:
        """The labels, where they are classes."""
        return self.y if self.y is not None and self.y.ndim == 1 else None

    def feature(self, column: int) -> str:
        """What a column is called."""
        if self.names:
            return self.names[column]
        if self.images:
            return str(tuple(map(int, np.unravel_index(column, self.shape))))
        return f"feature {column}"

    def features(self, columns: np.ndarray, most: int = 3) -> str:
        """What the first few columns are called, and how many there are besides."""
        more = f" and {len(columns) - most} more" if len(columns) > most else ""
        return ", ".join(self.feature(i) for i in columns[:most].tolist()) + more

    def numbers(self, rows: Any = slice(None), columns: Any = slice(None)) -> np.ndarray:
        """Floats (n, features), at least 32 bits, the mean of its column for what is not finite."""
        wide = np.result_type(self.rows.dtype, np.float32)
        made = np.array(self.rows[rows][:, columns], wide)
        bad = ~np.isfinite(made)
        if bad.any():
            made[bad] = 0
            mean = made.sum(axis=0) / np.maximum((~bad).sum(axis=0), 1)
            made = np.where(bad, mean, made)
        return made


def parts_of(splits: Mapping[str, Any]) -> tuple[Part, ...]:
    """The splits in one form.

    Raises: ValueError for no splits, what is no split, an empty one, or labels of another length.

    >>> parts = parts_of({'train': (np.zeros((2, 8, 8)), np.array([0, 1]))})
    >>> parts[0].rows.shape, parts[0].images, parts[0].classes.tolist()
    ((2, 64), True, [0, 1])
    """
    if not splits:
        raise ValueError("audit: expected splits by name, got none; give {'train': (x, y)}")
    pairs = {name: _pair(name, value) for name, value in splits.items()}
    pairs = _of_one_kind(pairs)
    codes = _codes([x for x, _ in pairs.values()])
    labels = _labels({name: y for name, (_, y) in pairs.items() if y is not None})
    made = tuple(_part(name, x, codes, labels.get(name)) for name, (x, _) in pairs.items())
    for part in made:
        if part.rows.size == 0:
            raise ValueError(
                f"audit: expected examples with features in {part.name!r}, got shape "
                f"{part.rows.shape}; leave it out"
            )
        if part.y is not None and len(part.y) != len(part.rows):
            raise ValueError(
                f"audit: expected a label for each of {len(part.rows)} examples of {part.name!r}, "
                f"got {len(part.y)}; check how the split was made"
            )
    return made


def alike(first: Part, second: Part) -> bool:
    """Whether the examples of two splits can be compared, column by column.

    >>> one, two = parts_of({'a': (np.zeros((2, 3)), None), 'b': (np.zeros((2, 4)), None)})
    >>> alike(one, one), alike(one, two)
    (True, False)
    """
    return first.shape == second.shape and first.names == second.names


def _pair(name: str, value: Any) -> tuple[Any, Any]:
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
    expect_native(f"audit: expected x of {name!r}", x)
    if isinstance(x, str):
        x = (x,)
    return x, y


def _of_one_kind(pairs: dict[str, Pair]) -> dict[str, Pair]:
    """A column of a Table that has categories in one split has them in all."""
    tables = [x for x, _ in pairs.values() if isinstance(x, Table)]
    named = {column for table in tables for column in table.categorical}

    def changed(x: Any) -> Any:
        mixed = {name: "category" for name in x.numeric if name in named}
        return x.with_kinds(mixed) if mixed else x

    return {n: (changed(x) if isinstance(x, Table) else x, y) for n, (x, y) in pairs.items()}


def _is_text(x: Any) -> bool:
    return not isinstance(x, Table) and len(x) > 0 and isinstance(x[0], str)


def _codes(xs: list[Any]) -> dict[str, dict[str, int]]:
    """The number of each category, by column; the whole text is the column '' of a set of texts."""
    seen: dict[str, set[str]] = {}
    for x in xs:
        if isinstance(x, Table):
            for name in x.categorical:
                seen.setdefault(name, set()).update(np.unique(x.columns[name]).tolist())
        elif _is_text(x):
            seen.setdefault("", set()).update(map(str, x))
    return {name: {value: i for i, value in enumerate(sorted(s))} for name, s in seen.items()}


def _part(name: str, x: Any, codes: dict[str, dict[str, int]], y: np.ndarray | None) -> Part:
    if isinstance(x, Table):
        columns = [
            np.array([codes[key][value] for value in column.tolist()], np.float64)
            if key in x.categorical
            else column
            for key, column in x.columns.items()
        ]
        names = tuple(x.columns)
        numbered = frozenset(i for i, key in enumerate(names) if key in x.categorical)
        texts = tuple(text for key in x.categorical for text in np.unique(x.columns[key]).tolist())
        return Part(
            name=name, rows=np.stack(columns, axis=1), shape=(len(names),), names=names,
            categorical=numbered, table=True, y=y, texts=texts,
            strings=tuple(x.columns[key] for key in x.categorical),
        )  # fmt: skip
    if _is_text(x):
        rows = np.array([[codes[""][str(text)]] for text in x], np.int64)
        return Part(
            name=name, rows=rows, shape=(1,), names=("text",), categorical=frozenset({0}),
            y=y, texts=tuple(map(str, x)), strings=(np.array(x, object),),
        )  # fmt: skip
    x = expect_numbers(f"audit: expected x of {name!r}", np.asarray(x))
    x = x.astype(np.float32) if x.dtype.kind not in "fiub" else x  # bfloat16
    shape = x.shape[1:] or (1,)
    return Part(name=name, rows=x.reshape(len(x), math.prod(shape)), shape=shape, y=y)


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
    # As many different integers as this are measurements, such as an age in days.
    many = len(names) > max(20, len(whole) / 10) and whole.dtype.kind in "iu"
    parts = np.split(whole[:, :1].astype(np.float64) if many else inverse, ends)
    return dict(zip(arrays, parts, strict=True))


def _label_array(name: str, y: Any) -> np.ndarray:
    array = np.asarray(y)
    if array.ndim == 0:
        raise ValueError(f"audit: expected a label for each example of {name!r}, got {y!r}")
    if array.dtype.kind in "OUST":
        array = expect_labels(f"audit: expected labels of {name!r}", y).astype(np.str_)
    return array
