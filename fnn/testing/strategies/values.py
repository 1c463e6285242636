"""Strategies of values. Each carries `typical(seed)`, one ordinary example.

`with_typical` sets it as an attribute of a new strategy, because hypothesis hands out one object
for equal calls. A typical example is random but not degenerate: normal numbers, distinct rows,
lengths that are not all equal. It takes no search, so it does not depend on hypothesis's database.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as hs
from hypothesis.strategies import SearchStrategy

from fnn.types import Batch

Strategy = SearchStrategy[Any]
Shape = int | tuple[int, ...]
Range = tuple[float, float]
Draw = Callable[[Strategy], Any]

# A jitted function compiles once for each shape, which takes longer than a hundred examples do.
POOL: tuple[tuple[int, ...], ...] = ((3,), (1,), (), (2, 3), (3, 1), (2, 3, 4))

LIMIT = 10.0  # size of numbers, where nothing else is asked for
SMALL = 32  # arrays of at most so many entries are drawn entry by entry
MAX_CHANGES = 8  # of entries of larger arrays
TRIES = 20


def with_typical(strategy: Strategy, typical: Callable[[np.random.Generator], Any]) -> Strategy:
    """The strategy with an ordinary example, which `example_of` and the laws use.

    Args:
      strategy: any strategy of hypothesis; it is not changed.
      typical: called with a generator of NumPy.

    >>> from hypothesis import strategies
    >>> even = with_typical(strategies.integers().map(lambda n: 2 * n), lambda rng: 4)
    >>> even.typical(0), example_of(even)
    (4, 4)
    """
    return _strategy(lambda draw: draw(strategy), typical)


def example_of(strategy: Any, seed: int = 0) -> Any:
    """One ordinary example: normal numbers, distinct rows, lengths that are not all equal.

    Args:
      strategy: a strategy of this module, or a tree of such strategies and of values.
      seed: the same seed gives the same example.

    Raises: ValueError for a strategy without a typical example.

    >>> example_of(arrays((2, 3))).shape
    (2, 3)
    >>> example_of({'x': labels(4, 2), 'n': 3}, seed=1)
    {'n': 3, 'x': array([0, 1, 1, 0], dtype=int32)}
    """
    if hasattr(strategy, "typical"):
        return strategy.typical(seed)
    return _typical(strategy, np.random.default_rng(seed))


def register_profile(name: str = "fnn", *, derandomize: bool = False, **options: Any) -> None:
    """Registers settings of hypothesis for compiled code; `settings.load_profile` loads them.

    An example has no deadline, because the first one of each shape compiles.

    Args:
      derandomize: whether every run has the same examples.
      options: other settings, such as `max_examples`.

    >>> register_profile('fnn-doctest', max_examples=20)
    >>> settings.get_profile('fnn-doctest').deadline is None
    True
    """
    options = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], **options}
    settings.register_profile(name, derandomize=derandomize, **options)


def shapes(pool: Sequence[tuple[int, ...]] = POOL) -> Strategy:
    """Shapes from a small pool, so that a jitted function compiles for a few shapes only.

    The pool has one dimension, a dimension of size 1, a scalar, and two and three dimensions with
    sizes that differ. It shrinks to the first.

    >>> example_of(shapes([(2,), (2, 3)])) in [(2,), (2, 3)]
    True
    """
    found = [tuple(shape) for shape in pool]
    return with_typical(hs.sampled_from(found), lambda rng: found[rng.integers(len(found))])


def arrays(
    shape: Any = POOL,
    dtype: Any = np.float32,
    *,
    low: float | None = None,
    high: float | None = None,
    edges: Sequence[float] = (),
) -> Strategy:
    """Arrays that shrink to zeros, small integers and eighths.

    Entries are simple numbers, edge values (0, low, high, tiny ones) or any others. Arrays of more
    than 32 entries are zeros or normal numbers with up to 8 entries changed.

    Args:
      shape: a shape, a pool of shapes, or a strategy of shapes.
      dtype: of floats, integers or booleans, also bfloat16.
      low, high: bounds, both included; by default -10 and 10, or 0 and 10 without a sign.
      edges: other values that are likely, also beyond the bounds, such as NaN.

    Raises: ValueError if no number lies between the bounds.

    >>> from hypothesis import find
    >>> find(arrays((2, 3)), lambda x: x.sum() >= 1.5)
    array([[0., 0., 0.],
           [0., 0., 2.]], dtype=float32)
    >>> example_of(arrays(4, int, low=0, high=9)).tolist()
    [6, 5, 2, 3]
    """
    kind = _Numbers(dtype, low, high, edges)
    sizes = _as_shapes(shape)
    return _strategy(
        lambda draw: kind.drawn(draw, draw(sizes)),
        lambda rng: kind.typical(rng, _typical(sizes, rng)),
    )


def trees(strategies: Any) -> Strategy:
    """A tree of strategies as a strategy of trees; what is no strategy is a constant.

    >>> example_of(trees({'x': arrays((2, 3)), 'length': 3}))['x'].shape
    (2, 3)
    """
    return _strategy(
        lambda draw: jax.tree.map(
            lambda s: draw(s) if _is_strategy(s) else s, strategies, is_leaf=_is_strategy
        ),
        lambda rng: _typical(strategies, rng),
    )


def params(shapes: Any, dtype: Any = np.float32, **bounds: Any) -> Strategy:
    """Trees of parameters.

    Args:
      shapes: a tree of shapes, arrays or `ShapeDtypeStruct`s. A tuple of integers is a shape.
      dtype: of leaves that are shapes.
      bounds: of the entries; see `arrays`.

    >>> jax.tree.map(np.shape, example_of(params({'kernel': (3, 4), 'bias': 4})))
    {'bias': (4,), 'kernel': (3, 4)}
    """

    def leaf(spec: Any) -> Strategy:
        if hasattr(spec, "dtype"):
            return arrays(spec.shape, spec.dtype, **bounds)
        return arrays(spec, dtype, **bounds)

    return trees(jax.tree.map(leaf, shapes, is_leaf=_is_shape))


def gradients(params: Any) -> Strategy:
    """Gradients for a tree of parameters (or of their shapes): ordinary, zero, tiny or large.

    One factor multiplies all leaves: 1, 0, 1e-6 or 1e4. Gradients are finite.

    >>> example_of(gradients({'w': jnp.ones((2, 3))}))['w'].shape
    (2, 3)
    """
    ordinary = _params(params)

    def drawn(draw: Draw) -> Any:
        factor = draw(hs.sampled_from((1.0, 0.0, 1e-6, 1e4)))
        return jax.tree.map(lambda g: _scaled(g, factor), draw(ordinary))

    return _strategy(drawn, lambda rng: _typical(ordinary, rng))


_params = params  # which the argument of `gradients` hides


def tokens(batch: int, time: int, vocabulary: int) -> Strategy:
    """Tokens, int32 (batch, time), from 0 to vocabulary - 1; both ends are likely.

    >>> x = example_of(tokens(3, 5, 7))
    >>> x.shape, x.dtype, bool((0 <= x).all() and (x < 7).all())
    ((3, 5), dtype('int32'), True)
    """
    return arrays((batch, time), np.int32, low=0, high=vocabulary - 1)


def images(
    batch: int, height: int, width: int, channels: int = 3, dtype: Any = np.float32
) -> Strategy:
    """Images (batch, height, width, channels), from 0 to 1, or to 255 if the dtype is uint8.

    >>> example_of(images(2, 4, 5)).shape
    (2, 4, 5, 3)
    """
    high = 1 if _has_fractions(dtype) else 255
    return arrays((batch, height, width, channels), dtype, low=0, high=high)


def lengths(batch: int, time: int, *, least: int = 1) -> Strategy:
    """Lengths of sequences, int32 (batch,), from `least` to `time`; both ends are likely.

    >>> example_of(lengths(3, 5)).tolist()
    [5, 1, 3]
    """
    if not 0 <= least <= time:
        raise ValueError(f"lengths: expected 0 <= least <= time, got {least} and {time}")
    drawn = arrays((batch,), np.int32, low=least, high=time)
    spread = np.linspace(least, time, batch).round().astype(np.int32)
    return with_typical(drawn, lambda rng: rng.permutation(spread))


def sequences(
    batch: int, time: int, features: int, *, least: int = 1, kind: type = dict
) -> Strategy:
    """Sequences with lengths: `{'x': (batch, time, features), 'lengths': (batch,)}`.

    Numbers past the length of a sequence are drawn as well; nothing may depend on them.

    Args:
      least: the shortest length.
      kind: dict, or tuple for `(x, lengths)`.

    >>> jax.tree.map(np.shape, example_of(sequences(3, 5, 2)))
    {'lengths': (3,), 'x': (3, 5, 2)}
    """
    parts = {"x": arrays((batch, time, features)), "lengths": lengths(batch, time, least=least)}
    return trees(parts if kind is dict else kind(parts.values()))


def tables(rows: int, columns: int, *, missing: bool = True) -> Strategy:
    """Tables of float32 (rows, columns), where missing values are NaN.

    >>> x = example_of(tables(6, 3))
    >>> x.shape, int(np.isnan(x).sum())
    ((6, 3), 2)
    """
    complete = arrays((rows, columns))

    def typical(rng: np.random.Generator) -> np.ndarray:
        x = _typical(complete, rng)
        if missing and rows > 1:
            others = x[1:].reshape(-1)  # no column is without any value
            others[rng.choice(others.size, max(x.size // 8, 1), replace=False)] = np.nan
        return x

    return with_typical(arrays((rows, columns), edges=[np.nan] * missing), typical)


def batches(x: Any = (6, 5), y: Any = (6,)) -> Strategy:
    """`fnn.types.Batch`es of inputs and targets.

    Args:
      x, y: shapes of float32, or strategies, or trees of strategies; the batch axis is the first.

    >>> batch = example_of(batches(x=(6, 5), y=labels(6, 3)))
    >>> batch.x.shape, batch.y.dtype
    ((6, 5), dtype('int32'))
    """
    return trees(Batch(*(arrays(part) if _is_shape(part) else part for part in (x, y))))


def masks(shape: Shape, *, least: int = 0) -> Strategy:
    """Boolean masks; those with all, none or a single entry True are likely.

    Args:
      least: the fewest entries that are True.

    >>> example_of(masks((2, 3))).tolist()
    [[True, True, True], [True, False, False]]
    """
    shape = _as_shape(shape)
    size = math.prod(shape)
    ones = np.eye(size, dtype=bool)
    kinds = [hs.just(np.ones(size, bool)), _Numbers(bool).one(size)]
    kinds += [hs.sampled_from(list(ones))] if size else []
    kinds += [hs.just(np.zeros(size, bool))] if least == 0 else []

    def typical(rng: np.random.Generator) -> np.ndarray:
        mask = rng.random(size) < 0.7
        mask[:1] = True
        mask[max(least, 1) :][-1:] = False
        mask[:least] = True
        return mask.reshape(shape)

    some = hs.one_of(kinds).filter(lambda mask: mask.sum() >= least)
    return with_typical(some.map(lambda mask: mask.reshape(shape).copy()), typical)


def labels(batch: int, classes: int) -> Strategy:
    """Labels, int32 (batch,), from 0 to classes - 1; both ends are likely.

    >>> sorted(example_of(labels(4, 3)).tolist())
    [0, 0, 1, 2]
    """
    drawn = arrays((batch,), np.int32, low=0, high=classes - 1)
    spread = (np.arange(batch) % classes).astype(np.int32)
    return with_typical(drawn, lambda rng: rng.permutation(spread))


def probabilities(batch: int, classes: int) -> Strategy:
    """Probabilities, float32 (batch, classes): rows sum to 1; zeros, ones and ties are likely.

    >>> example_of(probabilities(3, 4)).sum(axis=-1).round(5).tolist()
    [1.0, 1.0, 1.0]
    """
    counts = hs.lists(hs.integers(0, 8), min_size=classes, max_size=classes)
    certain = hs.sampled_from(np.eye(classes, dtype=int).tolist())
    rows = hs.lists(hs.just([1] * classes) | certain | counts, min_size=batch, max_size=batch)

    def normalized(rows: Any) -> np.ndarray:
        x = np.asarray(rows, np.float32).reshape(batch, classes)
        x[x.sum(axis=-1) == 0] = 1
        return x / x.sum(axis=-1, keepdims=True)

    return with_typical(
        rows.map(normalized),
        lambda rng: rng.dirichlet(np.ones(classes), size=batch).astype(np.float32),
    )


def logits(batch: int, classes: int, *, infinite: bool = True) -> Strategy:
    """Logits, float32 (batch, classes); edge values are 0, 1e4, -1e4, -inf and rows of ties.

    Args:
      infinite: whether -inf is among them. Each row has a finite entry.

    >>> from hypothesis import find
    >>> find(logits(1, 3), lambda x: np.isinf(x).any())
    array([[  0.,   0., -inf]], dtype=float32)
    """
    numbers = arrays((batch, classes), edges=[1e4, -1e4, *[-np.inf] * infinite])
    rare = hs.sampled_from((False, False, False, True))

    def drawn(draw: Draw) -> np.ndarray:
        x = draw(numbers)
        ties = draw(hs.lists(rare, min_size=batch, max_size=batch))
        x[:, 0][np.isinf(x).all(axis=-1)] = 0
        return np.where(np.asarray(ties)[:, None], x.max(axis=-1, keepdims=True), x)

    ordinary = arrays((batch, classes))
    return _strategy(drawn, lambda rng: _typical(ordinary, rng))


def keys() -> Strategy:
    """Typed keys of `jax.random`; they shrink to `jax.random.key(0)`.

    >>> example_of(keys()).dtype
    key<fry>
    """
    seeds = hs.integers(0, 2**31 - 1)
    return with_typical(
        seeds.map(jax.random.key), lambda rng: jax.random.key(int(rng.integers(2**31)))
    )


def hyper(**ranges: Any) -> Strategy:
    """Dicts of hyperparameters, Python floats; without arguments `lr` from 1e-4 to 1.

    A range of positive numbers is log-uniform, others are uniform. Both ends are likely. Values
    shrink to a power of ten in the middle of the range.

    Args:
      ranges: pairs of bounds; or strategies.

    >>> from hypothesis import find
    >>> find(hyper(lr=(1e-4, 1.0), momentum=(0, 0.99)), lambda h: True)
    {'lr': 0.01, 'momentum': 0.0}
    """
    ranges = ranges or {"lr": (1e-4, 1.0)}
    return trees({name: r if _is_strategy(r) else _within(name, *r) for name, r in ranges.items()})


def steps(most: int = 10_000) -> Strategy:
    """Numbers of steps, counted from 0: int32 scalars; 0, 1 and `most` are likely.

    >>> example_of(steps(100)).dtype
    dtype('int32')
    """
    return arrays((), np.int32, low=0, high=most)


class _Numbers:
    """Numbers of a dtype between bounds: a strategy of one, and arrays of them.

    Shapes are bare tuples: beartype looks at a random item of a `tuple[int, ...]`, and hypothesis
    refuses the module `random` in a strategy.
    """

    def __init__(
        self,
        dtype: Any,
        low: float | None = None,
        high: float | None = None,
        edges: Sequence[float] = (),
    ):
        self.dtype = np.dtype(jnp.dtype(dtype))
        self.normal = low is None and high is None
        self.low, self.high = _limits(self.dtype, low, high)
        if not self.low <= self.high:
            raise ValueError(
                f"arrays: expected low <= high with a {self.dtype} between them, got {low} and "
                f"{high}"
            )
        self.zero = min(max(0.0, self.low), self.high)
        self.element = self._element(edges)

    def _element(self, edges: Sequence[float]) -> Strategy:
        if self.dtype.kind == "b":
            return hs.booleans()
        low, high = self.low, self.high
        simple = (max(low, self.zero - 4), min(high, self.zero + 4))
        if not _has_fractions(self.dtype):
            near = [v for v in (0, 1, -1, low, high) if low <= v <= high]
            return (
                hs.integers(math.ceil(simple[0]), math.floor(simple[1]))
                | hs.sampled_from([int(v) for v in [*near, *edges]])
                | hs.integers(int(low), int(high))
            )
        tiny = 4 * float(jnp.finfo(self.dtype).eps)
        near = [v for v in (0.0, 1.0, -1.0, low, high, tiny, -tiny) if low <= v <= high]
        kinds: list[Strategy] = []
        for unit in (1.0, 8.0):
            first, last = math.ceil(simple[0] * unit), math.floor(simple[1] * unit)
            if first <= last:
                kinds.append(hs.integers(first, last).map(unit.__rtruediv__))
        kinds.append(hs.sampled_from([*near, *edges]))
        # 16-bit numbers are rounded from those of 32 bits, and bounds that have 16 bits are kept.
        double = self.dtype.itemsize == 8
        kinds.append(hs.floats(low, high, allow_subnormal=False, width=64 if double else 32))
        return hs.one_of(kinds)

    def one(self, size: int) -> Strategy:
        """A strategy of arrays with one axis."""
        return _strategy(
            lambda draw: self.drawn(draw, (size,)), lambda rng: self.typical(rng, (size,))
        )

    def drawn(self, draw: Draw, shape: tuple) -> np.ndarray:
        size = math.prod(shape)
        if size <= SMALL:
            entries = draw(hs.lists(self.element, min_size=size, max_size=size))
            return np.asarray(entries, self.dtype).reshape(shape)
        seed = draw(hs.none() | hs.integers(0, 99))
        if seed is None:
            x = np.full(size, self.zero, self.dtype)
        else:
            x = self.typical(np.random.default_rng(seed), (size,))
        where = hs.tuples(hs.integers(0, size - 1), self.element)
        for index, value in draw(hs.lists(where, max_size=MAX_CHANGES)):
            x[index] = value
        return x.reshape(shape)

    def typical(self, rng: np.random.Generator, shape: tuple) -> np.ndarray:
        """Normal or uniform numbers with distinct rows, where there are as many values."""
        x = self._random(rng, shape)
        for _ in range(TRIES):
            if x.ndim == 0 or len({row.tobytes() for row in x}) == len(x):
                break
            x = self._random(rng, shape)
        return x

    def _random(self, rng: np.random.Generator, shape: tuple) -> np.ndarray:
        x: Any
        if self.dtype.kind == "b":
            x = rng.random(shape) < 0.5
        elif not _has_fractions(self.dtype):
            x = rng.integers(int(self.low), int(self.high), size=shape, endpoint=True)
        elif self.normal:
            x = np.clip(rng.normal(size=shape), self.low, self.high)
        else:
            x = rng.uniform(self.low, self.high, size=shape)
        return np.asarray(x).astype(self.dtype)


def _limits(dtype: np.dtype, low: float | None, high: float | None) -> Range:
    """The least and the largest number of the dtype between the bounds."""
    if dtype.kind == "b":
        return 0, 1
    if low is None:
        low = 0 if dtype.kind == "u" else min(0, high or 0) - LIMIT
    if high is None:
        high = max(0, low) + LIMIT
    if not _has_fractions(dtype):
        info = np.iinfo(dtype)
        return max(math.ceil(low), int(info.min)), min(math.floor(high), int(info.max))
    return _inside(dtype, low, np.inf), _inside(dtype, high, -np.inf)


def _inside(dtype: np.dtype, bound: float, inwards: float) -> float:
    """The bound, or the next number of the dtype inwards where rounding leaves the interval."""
    rounded = np.asarray(bound, dtype)
    if (float(rounded) - bound) * inwards < 0:
        rounded = np.nextafter(rounded, np.asarray(inwards, dtype))
    return float(rounded)


def _within(name: str, low: float, high: float) -> Strategy:
    """Floats of a range, log-uniform if it is positive, with 3 significant digits."""
    if not low <= high:
        raise ValueError(f"hyper: expected {name} as (low, high), got ({low}, {high})")
    low, high = float(low), float(high)

    def rounded(value: float) -> float:
        return min(max(float(f"{value:.3g}"), low), high)

    if low <= 0:
        simple = [v for v in (0.0, 0.5, 1.0, 0.1, 0.9, low, high) if low <= v <= high]
        return with_typical(
            hs.sampled_from(simple) | hs.floats(low, high, allow_subnormal=False).map(rounded),
            lambda rng: rounded(rng.uniform(low, high)),
        )
    ends = math.log10(low), math.log10(high)
    middle = sum(ends) / 2
    powers = [float(f"1e{n}") for n in range(math.ceil(ends[0]), math.floor(ends[1]) + 1)]
    powers = sorted(powers, key=lambda v: abs(math.log10(v) - middle))
    return with_typical(
        hs.sampled_from([v for v in [*powers, low, high] if low <= v <= high])
        | hs.floats(*ends, allow_subnormal=False).map(lambda e: rounded(10**e)),
        lambda rng: rounded(10 ** rng.uniform(*ends)),
    )


@hs.composite
def _drawn(draw: Draw, make: Callable[[Draw], Any]) -> Any:
    return make(draw)


def _strategy(
    make: Callable[[Draw], Any], typical: Callable[[np.random.Generator], Any]
) -> Strategy:
    """A new strategy of what `make(draw)` returns."""
    made: Any = _drawn(make)
    made.typical = lambda seed=0: typical(np.random.default_rng(seed))
    return made


def _typical(strategies: Any, rng: np.random.Generator) -> Any:
    """The tree with a typical example for each strategy."""

    def leaf(strategy: Any) -> Any:
        if not _is_strategy(strategy):
            return strategy
        if not hasattr(strategy, "typical"):
            raise ValueError(
                f"example_of: expected a strategy of fnn.testing.strategies, got {strategy!r}; "
                "give it an example by with_typical"
            )
        return strategy.typical(int(rng.integers(2**31)))

    return jax.tree.map(leaf, strategies, is_leaf=_is_strategy)


def _has_fractions(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _is_strategy(value: Any) -> bool:
    return isinstance(value, SearchStrategy)


def _is_shape(value: Any) -> bool:
    if isinstance(value, int):
        return True
    return type(value) is tuple and all(isinstance(n, (int, np.integer)) for n in value)


def _as_shape(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _as_shapes(shape: Any) -> Strategy:
    if _is_strategy(shape):
        return shape
    return shapes([_as_shape(shape)] if _is_shape(shape) else shape)


def _scaled(g: np.ndarray, factor: float) -> np.ndarray:
    largest = float(jnp.finfo(g.dtype).max)
    return np.clip(np.float64(g) * factor, -largest, largest).astype(g.dtype)
