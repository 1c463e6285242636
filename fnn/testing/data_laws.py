"""Laws of the data: orders, loaders, splits and augmentations."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.testing import draws
from fnn.testing._compare import entries, expect_same, expect_same_specs, fresh
from fnn.testing._given import dtypes_beyond_float32, given
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.laws import arguments_are_kept, is_traced_alike

SIGMAS = 6.0
KEYS = 300


def check_order(order: Callable[..., Any], n: int, batch_size: int, **options: Any) -> None:
    """Runs all laws of a data order; the arguments are those of `order_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> from fnn.order import order
    >>> check_order(order, 10, 4)
    """
    check("check_order", order_laws(order, n, batch_size, **options))


def order_laws(
    order: Callable[..., Any],
    n: int,
    batch_size: int,
    *,
    key: Any = None,
    shards: int | None = None,
    shuffles: bool = True,
    like: Callable[..., Any] | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of an order.

    Args:
      order: `order(key, step, n, batch_size)` gives the indices of the batch of a step, where
        epochs are concatenated and cut into batches.
      n: number of examples, 5 to 100.
      batch_size: at most n; best one that does not divide n.
      key: of the order.
      shards: `order(key, step, n, batch_size, shard=i, shards=k)` gives part i of k.
      shuffles: whether each epoch is a new permutation.
      like: a reference, which must give the same indices.
      dtypes, policy: accepted for the sake of all checks.
      skip: name of a law -> the reason why it does not apply.

    >>> order_laws(lambda key, step, n, size: jnp.arange(size), 5, 5)[0]
    order_gives_indices
    """
    where = "check_order"
    if not callable(order):
        raise ValueError(f"{where}: expected a function of key, step, n, batch_size, got {order!r}")
    if not 1 <= batch_size <= n:
        raise ValueError(f"{where}: expected a batch size from 1 to n, got {batch_size} of {n}")
    dtypes_beyond_float32(where, dtypes)
    key = jax.random.key(0) if key is None else key
    args = (order, key, n, batch_size)
    laws = Battery(where, skip)
    laws.add(order_gives_indices, *args)
    laws.add(order_is_a_function_of_key_and_step, *args)
    laws.add(step_may_be_traced, *args)
    laws.add(every_example_once_an_epoch, *args)
    laws.add(batch_size_does_not_matter, *args)
    if shuffles:
        laws.add(epochs_differ, *args)
        laws.add(order_follows_the_key, *args)
        laws.add(positions_are_uniform, *args)
        laws.add(neighbors_are_uniform, *args)
    if shards is not None:
        laws.add(shards_are_disjoint, *args, shards)
    if like is not None:
        laws.add(orders_as_the_reference, *args, like)
    return laws.done()


def _stream(
    order: Callable[..., Any], key: Any, n: int, size: int, epochs: int, **options: Any
) -> np.ndarray:
    """The concatenated indices of some epochs."""
    steps = -(-epochs * n // size)
    batches = [np.asarray(order(fresh(key), step, n, size, **options)) for step in range(steps)]
    return np.concatenate(batches)


def order_gives_indices(order: Callable[..., Any], key: Any, n: int, batch_size: int) -> None:
    """Each batch has batch_size integers from 0 to n - 1."""
    for step in (0, 1, 7, 10_000):
        found = np.asarray(order(fresh(key), step, n, batch_size))
        wrong = found.shape != (batch_size,) or not np.issubdtype(found.dtype, np.integer)
        if wrong or found.min() < 0 or found.max() >= n:
            raise LawError(
                f"order_gives_indices: step {step} gives {found.dtype}{list(found.shape)} from "
                f"{found.min()} to {found.max()}, and must give {batch_size} integers below {n}"
            )


def order_is_a_function_of_key_and_step(
    order: Callable[..., Any], key: Any, n: int, batch_size: int
) -> None:
    """The same step gives the same indices, in whatever order the steps are asked for."""
    forward = [np.asarray(order(fresh(key), step, n, batch_size)) for step in range(6)]
    backward = [np.asarray(order(fresh(key), step, n, batch_size)) for step in reversed(range(6))]
    expect_same(
        "order_is_a_function_of_key_and_step",
        forward,
        backward[::-1],
        names=("asked for in order", "in reverse"),
        hint="keep no generator and no counter: a resumed run asks for any step",
    )


def step_may_be_traced(order: Callable[..., Any], key: Any, n: int, batch_size: int) -> None:
    """Under jit and vmap, with a traced step, the indices are the same."""
    steps = jnp.arange(6, dtype=jnp.int32)
    try:
        found = jax.jit(jax.vmap(lambda step: order(key, step, n, batch_size)))(steps)
    except (jax.errors.JAXTypeError, TypeError) as error:
        raise LawError(
            f"step_may_be_traced: {type(error).__name__}: {str(error).splitlines()[0]}; compute "
            "the epoch and the offset by jnp"
        ) from error
    wanted = [np.asarray(order(fresh(key), int(step), n, batch_size)) for step in steps]
    expect_same(
        "step_may_be_traced",
        np.stack(wanted),
        np.asarray(found).astype(wanted[0].dtype),
        names=("for Python's integers", "traced"),
        hint="mind the dtype of the step",
    )


def every_example_once_an_epoch(
    order: Callable[..., Any], key: Any, n: int, batch_size: int
) -> None:
    """Each run of n indices from a multiple of n on is a permutation; for other sizes as well."""
    for size in dict.fromkeys([batch_size, n, max(1, n // 2), max(1, n - 1), 1]):
        stream = _stream(order, key, n, size, 3)
        for epoch in range(3):
            counts = np.bincount(stream[epoch * n : (epoch + 1) * n], minlength=n)
            if not (counts == 1).all():
                i = int((counts != 1).argmax())
                raise LawError(
                    f"every_example_once_an_epoch: with batches of {size}, example {i} of {n} "
                    f"comes {counts[i]} times in epoch {epoch}; cut the concatenated epochs into "
                    "batches, and shuffle all examples",
                    expected=1,
                    got=int(counts[i]),
                )


def batch_size_does_not_matter(
    order: Callable[..., Any], key: Any, n: int, batch_size: int
) -> None:
    """The concatenated batches are the same for another batch size."""
    base = _stream(order, key, n, batch_size, 2)[: 2 * n]
    for size in dict.fromkeys([1, n]):
        expect_same(
            f"batch_size_does_not_matter, for {size}",
            base,
            _stream(order, key, n, size, 2)[: 2 * n].astype(base.dtype),
            names=(f"batches of {batch_size}", f"batches of {size}"),
            hint="derive the permutation of an epoch from the epoch's number alone",
        )


def epochs_differ(order: Callable[..., Any], key: Any, n: int, batch_size: int) -> None:
    """Each of eight epochs is another permutation, none of them sorted."""
    stream = _stream(order, key, n, batch_size, 8)[: 8 * n].reshape(8, n)
    rows = [tuple(row) for row in stream]
    if n < 5:
        return
    if len(set(rows)) < 8 or tuple(range(n)) in rows:
        raise LawError(
            f"epochs_differ: of 8 epochs {len(set(rows))} differ, or one is sorted; fold the epoch "
            "into the key"
        )


def order_follows_the_key(order: Callable[..., Any], key: Any, n: int, batch_size: int) -> None:
    """Another key gives another order; and it is not that of a later epoch."""
    own = _stream(order, key, n, batch_size, 3)[: 3 * n].reshape(3, n)
    for i in range(1, 4):
        other = _stream(order, jax.random.fold_in(key, i), n, batch_size, 3)[: 3 * n].reshape(3, n)
        if n >= 5 and {tuple(row) for row in own} & {tuple(row) for row in other}:
            raise LawError(
                "order_follows_the_key: two keys share an epoch; shuffle by the key, and fold the "
                "epoch into it instead of adding it"
            )


def _permutations(order: Callable[..., Any], n: int, count: int = KEYS) -> np.ndarray:
    """First epochs of many keys."""
    keys = jax.random.split(jax.random.key(11), count)
    try:
        found = jax.jit(jax.vmap(lambda key: order(key, 0, n, n)))(keys)
    except (jax.errors.JAXTypeError, TypeError):
        found = [np.asarray(order(key, 0, n, n)) for key in keys]
    return np.asarray(found)


def positions_are_uniform(order: Callable[..., Any], key: Any, n: int, batch_size: int) -> None:
    """Over many keys each example is at each position about equally often."""
    del key, batch_size
    found = _permutations(order, n)
    counts = np.zeros((n, n))
    for position in range(n):
        counts[position] = np.bincount(found[:, position], minlength=n)[:n]
    expected = KEYS / n
    deviation = np.sqrt(KEYS * (1 / n) * (1 - 1 / n))
    worst = np.unravel_index(np.abs(counts - expected).argmax(), counts.shape)
    if not abs(counts[worst] - expected) <= SIGMAS * deviation + 1:
        raise LawError(
            f"positions_are_uniform: example {worst[1]} is at position {worst[0]} for "
            f"{int(counts[worst])} of {KEYS} keys, and must be for about {expected:.0f}; shuffle "
            "all examples together, not within blocks",
            expected=expected,
            got=counts[worst],
        )


def neighbors_are_uniform(order: Callable[..., Any], key: Any, n: int, batch_size: int) -> None:
    """Over many keys the distance of neighbors is distributed as in a random permutation."""
    del key, batch_size
    found = _permutations(order, n).astype(np.int64)
    steps = (found[:, 1:] - found[:, :-1]) % n
    counts = np.bincount(steps.ravel(), minlength=n)[1:n]
    expected = steps.size / (n - 1)
    allowed = SIGMAS * np.sqrt(expected) + 1
    worst = int(np.abs(counts - expected).argmax())
    if not abs(counts[worst] - expected) <= allowed:
        raise LawError(
            f"neighbors_are_uniform: the next index is {worst + 1} further (modulo {n}) in "
            f"{counts[worst]} of {steps.size} cases, and must be in about {expected:.0f}; a shift "
            "or a shuffle in blocks is no permutation at random",
            expected=expected,
            got=counts[worst],
        )


def shards_are_disjoint(
    order: Callable[..., Any], key: Any, n: int, batch_size: int, shards: int
) -> None:
    """The parts of the shards of each step are disjoint, and together an epoch is whole."""
    parts = [_stream(order, key, n, batch_size, 1, shard=i, shards=shards) for i in range(shards)]
    steps = [set(part[:batch_size].tolist()) for part in parts]
    for i in range(shards):
        for j in range(i):
            if steps[i] & steps[j]:
                raise LawError(
                    f"shards_are_disjoint: shards {j} and {i} share {len(steps[i] & steps[j])} "
                    "examples of the first step; cut one order into parts"
                )
    whole = np.concatenate([part[: n // shards] for part in parts])
    if len(np.unique(whole)) < len(whole):
        raise LawError("shards_are_disjoint: an epoch has an example in two shards")


def orders_as_the_reference(
    order: Callable[..., Any], key: Any, n: int, batch_size: int, like: Callable[..., Any]
) -> None:
    """The indices are those of the reference."""
    ours, theirs = (_stream(f, key, n, batch_size, 3) for f in (order, like))
    expect_same(
        "orders_as_the_reference",
        theirs,
        ours.astype(theirs.dtype),
        names=("the reference", "the order"),
        hint="compare how epoch and offset follow from the step",
    )


def check_loader(
    loader: Callable[..., Any], x: Any, y: Any, *, batch_size: int, **options: Any
) -> None:
    """Runs all laws of a loader of one epoch; the arguments are those of `loader_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> def loader(key, x, y):
    ...     order = np.asarray(jax.random.permutation(key, len(x)))
    ...     return [(x[order[i : i + 4]], y[order[i : i + 4]]) for i in range(0, len(x), 4)]
    >>> check_loader(loader, np.arange(10.0), np.arange(10), batch_size=4)
    """
    check("check_loader", loader_laws(loader, x, y, batch_size=batch_size, **options))


def loader_laws(
    loader: Callable[..., Any],
    x: Any,
    y: Any,
    *,
    batch_size: int,
    drop_last: bool = False,
    shuffles: bool = True,
    like: Callable[..., Any] | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a loader.

    Args:
      loader: `loader(key, x, y)` gives the batches (x, y) of one epoch, an iterable.
      x, y: arrays of 7 or more examples, all different in x.
      batch_size: of all batches but the last.
      drop_last: whether a smaller last batch is dropped.
      shuffles: whether the order follows the key.
      like: a reference, which must give the same batches.
      dtypes, policy: accepted for the sake of all checks.
      skip: name of a law -> the reason why it does not apply.

    >>> loader_laws(lambda key, x, y: [(x, y)], np.arange(7.0), np.arange(7), batch_size=7)[0]
    loader_keeps_its_arrays
    """
    where = "check_loader"
    x, y = np.asarray(given(where, x)), np.asarray(given(where, y))
    if len(x) != len(y) or len(x) < 7:
        raise ValueError(f"{where}: expected 7 examples or more, got {len(x)} of x, {len(y)} of y")
    dtypes_beyond_float32(where, dtypes)
    laws = Battery(where, skip)
    laws.add(loader_keeps_its_arrays, loader, x, y)
    laws.add(loader_gives_batches, loader, x, y, batch_size, drop_last)
    laws.add(each_example_once, loader, x, y, batch_size, drop_last)
    laws.add(inputs_stay_with_their_targets, loader, x, y)
    laws.add(loader_is_a_function_of_the_key, loader, x, y)
    if shuffles:
        laws.add(loader_follows_the_key, loader, x, y)
        laws.add(loader_shuffles_everything, loader, x, y, batch_size)
    if like is not None:
        laws.add(loads_as_the_reference, loader, x, y, like)
    return laws.done()


def _loaded(loader: Callable[..., Any], x: Any, y: Any, seed: int = 0) -> list[tuple[Any, Any]]:
    batches = loader(jax.random.key(seed), x, y)
    return [(np.array(a), np.array(b)) for a, b in batches]


def _codes(x: np.ndarray, batches: list[tuple[Any, Any]]) -> np.ndarray:
    """For each loaded example its index in x, or -1."""
    index = {row.tobytes(): i for i, row in enumerate(_flat(x))}
    rows = [row for a, _ in batches for row in _flat(a.astype(x.dtype))]
    return np.array([index.get(row.tobytes(), -1) for row in rows])


def _flat(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(len(x), -1)


def loader_keeps_its_arrays(loader: Callable[..., Any], x: Any, y: Any) -> None:
    """The arrays are not shuffled in place."""
    given_ = x.copy(), y.copy()
    _loaded(loader, *given_)
    if not (np.array_equal(given_[0], x) and np.array_equal(given_[1], y)):
        raise LawError(
            "loader_keeps_its_arrays: x or y have changed; index them instead of shuffling in place"
        )


def loader_gives_batches(
    loader: Callable[..., Any], x: Any, y: Any, batch_size: int, drop_last: bool
) -> None:
    """Batches have the shapes and dtypes of the examples; only the last may be smaller."""
    batches = _loaded(loader, x, y)
    full, rest = divmod(len(x), batch_size)
    wanted = [batch_size] * full + [rest] * (rest > 0 and not drop_last)
    sizes = [len(a) for a, _ in batches]
    if sizes != wanted:
        raise LawError(
            f"loader_gives_batches: the batches of {len(x)} examples have sizes {sizes}, and must "
            f"have {wanted}",
            expected=wanted,
            got=sizes,
        )
    for a, b in batches:
        if a.shape[1:] != x.shape[1:] or b.shape[1:] != y.shape[1:]:
            raise LawError(f"loader_gives_batches: a batch has shapes {a.shape} and {b.shape}")


def each_example_once(
    loader: Callable[..., Any], x: Any, y: Any, batch_size: int, drop_last: bool
) -> None:
    """Each example comes once in an epoch, but for those in a last batch that is dropped."""
    for seed in range(3):
        codes = _codes(x, _loaded(loader, x, y, seed))
        if (codes < 0).any():
            raise LawError("each_example_once: there are examples that are not in x")
        counts = np.bincount(codes, minlength=len(x))
        most = len(x) - (len(x) % batch_size if drop_last else 0)
        if counts.max() > 1 or counts.sum() != most:
            raise LawError(
                f"each_example_once: of {len(x)} examples {int((counts == 0).sum())} do not come "
                f"and {int((counts > 1).sum())} come more than once; check the last batch",
                expected=most,
                got=int(counts.sum()),
            )


def inputs_stay_with_their_targets(loader: Callable[..., Any], x: Any, y: Any) -> None:
    """The target of each example is its own."""
    batches = _loaded(loader, x, y)
    codes = _codes(x, batches)
    targets = np.concatenate([b for _, b in batches])
    known = codes >= 0
    if not np.array_equal(targets[known], y[codes[known]].astype(targets.dtype)):
        raise LawError(
            "inputs_stay_with_their_targets: there are examples with the target of another; "
            "shuffle both by one permutation"
        )


def loader_is_a_function_of_the_key(loader: Callable[..., Any], x: Any, y: Any) -> None:
    """The same key gives the same batches."""
    expect_same(
        "loader_is_a_function_of_the_key",
        _loaded(loader, x, y),
        _loaded(loader, x, y),
        names=("the first epoch", "the second"),
        hint="draw the order from the key alone, and not from NumPy's global generator",
    )


def loader_follows_the_key(loader: Callable[..., Any], x: Any, y: Any) -> None:
    """Another key gives another order."""
    orders = [tuple(_codes(x, _loaded(loader, x, y, seed))) for seed in range(4)]
    if len(set(orders)) < 4:
        raise LawError("loader_follows_the_key: two keys give one order; shuffle by the key")


def loader_shuffles_everything(loader: Callable[..., Any], x: Any, y: Any, batch_size: int) -> None:
    """Over many keys each example is in the first batch about equally often."""
    count = 150
    first = np.zeros(len(x))
    for seed in range(count):
        codes = _codes(x, _loaded(loader, x, y, seed)[:1])
        first[codes[codes >= 0]] += 1
    p = batch_size / len(x)
    deviation = np.sqrt(count * p * (1 - p))
    worst = int(np.abs(first - count * p).argmax())
    if not abs(first[worst] - count * p) <= SIGMAS * deviation + 1:
        raise LawError(
            f"loader_shuffles_everything: example {worst} is in the first batch for "
            f"{int(first[worst])} of {count} keys, and must be for about {count * p:.0f}; shuffle "
            "examples, not batches or blocks"
        )


def loads_as_the_reference(
    loader: Callable[..., Any], x: Any, y: Any, like: Callable[..., Any]
) -> None:
    """The batches are those of the reference."""
    expect_same(
        "loads_as_the_reference",
        _loaded(like, x, y),
        _loaded(loader, x, y),
        names=("the reference", "the loader"),
        hint="compare the permutation and the cut",
    )


def check_split(split: Callable[..., Any], n: int, **options: Any) -> None:
    """Runs all laws of a split; the arguments are those of `split_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> def split(key, n):
    ...     order = np.asarray(jax.random.permutation(key, n))
    ...     return order[: n // 5], order[n // 5 :]
    >>> check_split(split, 20, sizes=(4, 16))
    """
    check("check_split", split_laws(split, n, **options))


def split_laws(
    split: Callable[..., Any],
    n: int,
    *,
    sizes: Sequence[int] | None = None,
    labels: Any = None,
    groups: Any = None,
    shuffles: bool = True,
    like: Callable[..., Any] | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of a split.

    Args:
      split: `split(key, n)` gives the parts, arrays of indices; `split(key, labels)` with labels,
        `split(key, groups)` with groups.
      n: number of examples, 20 or more.
      sizes: those of the parts.
      labels: classes of the examples, (n,): each part has about the same fraction of each class.
      groups: groups of the examples, (n,): no group is in two parts.
      shuffles: whether the parts follow the key.
      like: a reference, whose parts have the same sizes.
      dtypes, policy: accepted for the sake of all checks.
      skip: name of a law -> the reason why it does not apply.

    >>> split_laws(lambda key, n: (np.arange(n),), 20)[0]
    parts_are_disjoint
    """
    where = "check_split"
    if not callable(split):
        raise ValueError(f"{where}: expected a function of key and n, got {split!r}")
    dtypes_beyond_float32(where, dtypes)
    given_ = (
        n if labels is None and groups is None else np.asarray(labels if groups is None else groups)
    )
    args = (split, n, given_)
    laws = Battery(where, skip)
    laws.add(parts_are_disjoint, *args)
    laws.add(parts_cover_everything, *args)
    laws.add(split_is_a_function_of_the_key, *args)
    if sizes is not None:
        laws.add(parts_have_sizes, *args, tuple(sizes))
    if shuffles:
        laws.add(split_follows_the_key, *args)
        if labels is None and groups is None:
            laws.add(parts_are_uniform, *args)
    if labels is not None:
        laws.add(parts_are_stratified, *args, np.asarray(labels))
    if groups is not None:
        laws.add(groups_stay_together, *args, np.asarray(groups))
    if like is not None:
        laws.add(splits_as_the_reference, *args, like)
    return laws.done()


def _parts(split: Callable[..., Any], given_: Any, seed: int = 0) -> list[np.ndarray]:
    return [np.asarray(part) for part in split(jax.random.key(seed), given_)]


def parts_are_disjoint(split: Callable[..., Any], n: int, given_: Any) -> None:
    """No example is in two parts, or twice in one: nothing leaks."""
    for seed in range(4):
        parts = _parts(split, given_, seed)
        whole = np.concatenate(parts)
        values, counts = np.unique(whole, return_counts=True)
        if counts.max(initial=0) > 1:
            raise LawError(
                f"parts_are_disjoint: example {values[counts.argmax()]} comes {counts.max()} "
                "times; cut one permutation",
                got=int(counts.max()),
            )
        if len(whole) and (whole.min() < 0 or whole.max() >= n):
            raise LawError(f"parts_are_disjoint: there is an index {whole.max()} of {n} examples")


def parts_cover_everything(split: Callable[..., Any], n: int, given_: Any) -> None:
    """Each example is in a part, and no part is empty."""
    for seed in range(3):
        parts = _parts(split, given_, seed)
        missing = np.setdiff1d(np.arange(n), np.concatenate(parts))
        if len(missing):
            raise LawError(
                f"parts_cover_everything: {len(missing)} of {n} examples are in no part, such as "
                f"{missing[0]}; mind how the sizes are rounded"
            )
        if min(map(len, parts)) == 0:
            raise LawError(f"parts_cover_everything: the sizes are {[len(p) for p in parts]}")


def parts_have_sizes(
    split: Callable[..., Any], n: int, given_: Any, sizes: tuple[int, ...]
) -> None:
    """The parts have the declared sizes."""
    found = tuple(len(part) for part in _parts(split, given_))
    if found != sizes:
        raise LawError(
            f"parts_have_sizes: the sizes are {found}, and must be {sizes}",
            expected=sizes,
            got=found,
        )


def split_is_a_function_of_the_key(split: Callable[..., Any], n: int, given_: Any) -> None:
    """The same key gives the same parts."""
    expect_same(
        "split_is_a_function_of_the_key",
        _parts(split, given_),
        _parts(split, given_),
        names=("the first call", "the second"),
        hint="draw from the key alone, and not from NumPy's global generator",
    )


def split_follows_the_key(split: Callable[..., Any], n: int, given_: Any) -> None:
    """Other keys give other parts."""
    found = {tuple(sorted(_parts(split, given_, seed)[0].tolist())) for seed in range(6)}
    if len(found) < 3:
        raise LawError(
            f"split_follows_the_key: 6 keys give {len(found)} different parts; shuffle by the key"
        )


def parts_are_uniform(split: Callable[..., Any], n: int, given_: Any) -> None:
    """Over many keys each example is in the first part about equally often."""
    counts = np.zeros(n)
    for seed in range(KEYS):
        counts[_parts(split, given_, seed)[0]] += 1
    p = counts.sum() / (n * KEYS)
    deviation = np.sqrt(KEYS * p * (1 - p))
    worst = int(np.abs(counts - KEYS * p).argmax())
    if not abs(counts[worst] - KEYS * p) <= SIGMAS * deviation + 1:
        raise LawError(
            f"parts_are_uniform: example {worst} is in the first part for {int(counts[worst])} of "
            f"{KEYS} keys, and must be for about {KEYS * p:.0f}; shuffle all examples"
        )


def parts_are_stratified(
    split: Callable[..., Any], n: int, given_: Any, labels: np.ndarray
) -> None:
    """Each part has the classes in the fractions of the whole, up to one example of each."""
    for seed in range(4):
        for i, part in enumerate(_parts(split, given_, seed)):
            for label in np.unique(labels):
                wanted = (labels == label).sum() * len(part) / n
                found = int((labels[part] == label).sum())
                if not abs(found - wanted) <= 1.0 + 1e-6 + 0.05 * wanted:
                    raise LawError(
                        f"parts_are_stratified: part {i} has {found} of class {label}, and must "
                        f"have about {wanted:.1f}; split each class for itself",
                        expected=wanted,
                        got=found,
                    )


def groups_stay_together(
    split: Callable[..., Any], n: int, given_: Any, groups: np.ndarray
) -> None:
    """No group is in two parts."""
    for seed in range(4):
        seen: dict[Any, int] = {}
        for i, part in enumerate(_parts(split, given_, seed)):
            for group in np.unique(groups[part]).tolist():
                if seen.setdefault(group, i) != i:
                    raise LawError(
                        f"groups_stay_together: group {group} is in parts {seen[group]} and {i}; "
                        "split the groups, and not the examples"
                    )


def splits_as_the_reference(
    split: Callable[..., Any], n: int, given_: Any, like: Callable[..., Any]
) -> None:
    """The parts have about the sizes of the reference's."""
    ours, theirs = ([len(p) for p in _parts(f, given_)] for f in (split, like))
    if len(ours) != len(theirs) or max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > 1:
        raise LawError(
            f"splits_as_the_reference: the sizes are {ours}, those of the reference {theirs}",
            expected=theirs,
            got=ours,
        )


def check_augment(augment: Callable[..., Any], batch: Any, **options: Any) -> None:
    """Runs all laws of an augmentation; the arguments are those of `augment_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> def augment(key, batch):
    ...     x, y = batch
    ...     return x + 0.1 * jax.random.normal(key, x.shape), y
    >>> check_augment(augment, (jnp.ones((4, 3)), jnp.arange(4)))
    """
    check("check_augment", augment_laws(augment, batch, **options))


def augment_laws(
    augment: Callable[..., Any],
    batch: Any,
    *,
    labels: str = "kept",
    bounds: tuple[float, float] | None = None,
    invariant: Sequence[tuple[str, Callable]] = (),
    rate: float | None = None,
    like: Callable[..., Any] | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of an augmentation.

    Args:
      augment: `augment(key, batch) -> batch`.
      batch: (x, y), at least 4 examples, all different.
      labels: "kept" if y does not change, "mixed" if y is mixed as x is (its sum over the batch and
        over the classes stays), "any" if nothing is said.
      bounds: the least and the largest value in x.
      invariant: (name, g): g(x) of each example does not change.
      rate: the fraction of the examples that change.
      like: a reference: for many keys x has the same mean and mean square at each index.
      dtypes, policy: accepted for the sake of all checks.
      skip: name of a law -> the reason why it does not apply.

    >>> augment_laws(lambda key, batch: batch, (jnp.ones((4, 3)), jnp.arange(4)))[0]
    augment_keeps_its_arguments
    """
    where = "check_augment"
    if not callable(augment):
        raise ValueError(f"{where}: expected a function of key and batch, got {augment!r}")
    if labels not in ("kept", "mixed", "any"):
        raise ValueError(f"{where}: expected labels to be kept, mixed or any, got {labels!r}")
    dtypes_beyond_float32(where, dtypes)
    pair = tuple(jax.tree.map(jnp.asarray, tuple(given(where, batch))))
    laws = Battery(where, skip)
    laws.add(augment_keeps_its_arguments, augment, pair)
    laws.add(augment_is_traced_alike, augment, pair)
    laws.add(augment_keeps_shapes_and_dtypes, augment, pair, labels)
    laws.add(augment_jit_equals_eager, augment, pair)
    laws.add(augment_follows_the_key, augment, pair)
    laws.add(augment_uses_no_key_twice, augment, pair)
    if labels != "mixed":  # a mixture of copies is a copy
        laws.add(augmentation_differs_between_examples, augment, pair)
    if labels == "kept":
        laws.add(labels_are_kept, augment, pair)
        laws.add(examples_do_not_mix, augment, pair)
    if labels == "mixed":
        laws.add(labels_are_mixed_as_inputs, augment, pair)
    if bounds is not None:
        laws.add(values_are_within_bounds, augment, pair, bounds)
    for name, g in invariant:
        laws.add(augment_keeps, augment, pair, name, g)
    if rate is not None:
        laws.add(changes_a_fraction, augment, pair, rate)
    if like is not None:
        laws.add(augments_as_the_reference, augment, pair, like)
    return laws.done()


def _compiled(augment: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(augment)


def augment_keeps_its_arguments(augment: Callable[..., Any], batch: Any) -> None:
    """The batch is not changed in place, also if it is in NumPy."""
    arrays = jax.tree.map(np.array, batch)
    try:
        arguments_are_kept(augment, jax.random.key(0), arrays)
    except TypeError:
        arguments_are_kept(augment, jax.random.key(0), batch)


def augment_is_traced_alike(augment: Callable[..., Any], batch: Any) -> None:
    """Two traces are the same program."""
    is_traced_alike(augment, jax.random.key(0), batch)


def augment_keeps_shapes_and_dtypes(augment: Callable[..., Any], batch: Any, labels: str) -> None:
    """The new batch has the structure, shapes and dtypes of the old; labels may become soft."""
    names, hint = ("before", "after"), "cast the result to the dtype of the batch"
    found = jax.eval_shape(augment, jax.random.key(0), batch)
    if labels == "kept":
        expect_same_specs("augment_keeps_shapes_and_dtypes", batch, found, names=names, hint=hint)
    else:
        expect_same_specs(
            "augment_keeps_shapes_and_dtypes", batch[0], found[0], names=names, hint=hint
        )


def augment_jit_equals_eager(augment: Callable[..., Any], batch: Any) -> None:
    """Compiled, the batch is the same."""
    expect_same(
        "augment_jit_equals_eager",
        augment(jax.random.key(0), batch),
        _compiled(augment)(jax.random.key(0), batch),
        names=("eager", "jit"),
        rtol=1e-5,
        hint="look for NumPy's random numbers, or a choice by value",
    )


def augment_follows_the_key(augment: Callable[..., Any], batch: Any) -> None:
    """The same key gives the same batch; of eight keys, some give another."""
    run = _compiled(augment)
    first, again = (run(jax.random.key(0), batch) for _ in range(2))
    names = ("the first call", "the second")
    expect_same("augment_follows_the_key", first, again, names=names, hint="draw from the key")
    for seed in range(1, 9):
        other = run(jax.random.key(seed), batch)
        if not np.array_equal(_first(first), _first(other), equal_nan=True):
            return
    raise LawError("augment_follows_the_key: nine keys give the same batch; draw from the key")


def _first(batch: Any) -> np.ndarray:
    return entries(jax.tree.leaves(batch)[0])


def augment_uses_no_key_twice(augment: Callable[..., Any], batch: Any) -> None:
    """No two random draws have the same key."""
    draws.no_key_is_used_twice(lambda key: augment(key, batch), jax.random.key(0))


def augmentation_differs_between_examples(augment: Callable[..., Any], batch: Any) -> None:
    """Copies of one example are augmented differently, for one of many keys."""
    run = _compiled(augment)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * len(leaf)), batch)
    changed = False
    for seed in range(24):
        x = _first(run(jax.random.key(seed), batches))
        changed |= not np.array_equal(x, _first(batches))
        if x.shape[:1] == _first(batches).shape[:1] and (x != x[:1]).any():
            return
    if changed:
        raise LawError(
            "augmentation_differs_between_examples: copies of an example become equal for 24 keys; "
            "split the key over the batch"
        )


def labels_are_kept(augment: Callable[..., Any], batch: Any) -> None:
    """The targets do not change."""
    for seed in range(4):
        expect_same(
            "labels_are_kept",
            batch[1],
            _compiled(augment)(jax.random.key(seed), batch)[1],
            names=("before", "after"),
            hint="keep the order of the examples, or move the targets with them",
        )


def examples_do_not_mix(augment: Callable[..., Any], batch: Any) -> None:
    """With one key, another example in the batch leaves the others as they are."""
    run = _compiled(augment)
    other = jax.tree.map(lambda leaf: leaf.at[0].set(leaf[1]), batch)
    for seed in range(4):
        a, b = (_first(run(jax.random.key(seed), given_)) for given_ in (batch, other))
        if a.shape[:1] == b.shape[:1] and not np.allclose(a[1:], b[1:], rtol=1e-5, atol=1e-6):
            raise LawError(
                "examples_do_not_mix: another first example changes the others; declare "
                "labels='mixed' if they are meant to mix"
            )


def labels_are_mixed_as_inputs(augment: Callable[..., Any], batch: Any) -> None:
    """Mixed targets are those of what was mixed: each is the same combination as its input.

    The examples are unit vectors, and so are the targets: both must have the same weights.
    """
    x, y = batch
    count = len(y)
    size = int(np.prod(x.shape[1:]))
    soft = y.ndim > 1
    classes = y.shape[-1] if soft else count
    if soft and classes < count:
        return
    levels = jnp.arange(count, dtype=x.dtype)
    flat = jnp.broadcast_to(levels[:, None], (count, size)).reshape(x.shape)
    targets = jnp.eye(count, classes, dtype=y.dtype) if soft else jnp.arange(count, dtype=y.dtype)
    for seed in range(6):
        found, labels = _compiled(augment)(jax.random.key(seed), (flat, targets))
        if labels.ndim != 2:
            return
        weights = entries(labels)[:, :count]
        if not np.allclose(entries(labels).sum(axis=1), 1, atol=1e-4):
            raise LawError("labels_are_mixed_as_inputs: the weights of a target do not add up to 1")
        mean = entries(found).reshape(count, -1).mean(axis=1)
        wanted = weights @ np.arange(count)
        if not np.allclose(mean, wanted, atol=1e-3 * count):
            i = int(np.abs(mean - wanted).argmax())
            raise LawError(
                f"labels_are_mixed_as_inputs: input {i} is mixed to {mean[i]:.4g}, and its target "
                f"says {wanted[i]:.4g}; use one weight and one partner for both",
                expected=wanted[i],
                got=mean[i],
            )


def values_are_within_bounds(
    augment: Callable[..., Any], batch: Any, bounds: tuple[float, float]
) -> None:
    """No value in x is outside the bounds."""
    for seed in range(12):
        x = _first(_compiled(augment)(jax.random.key(seed), batch))
        if not (x.min() >= bounds[0] - 1e-6 and x.max() <= bounds[1] + 1e-6):
            raise LawError(
                f"values_are_within_bounds: values are from {x.min():.4g} to {x.max():.4g}, "
                f"outside {bounds}; clip, or use the range of the batch",
                expected=bounds,
                got=(x.min(), x.max()),
            )


def augment_keeps(augment: Callable[..., Any], batch: Any, name: str, g: Callable) -> None:
    """g(x) of each example does not change."""
    for seed in range(6):
        found = _compiled(augment)(jax.random.key(seed), batch)[0]
        expect_same(
            f"augment_keeps {name}",
            jax.vmap(g)(batch[0]),
            jax.vmap(g)(found),
            names=("before", "after"),
            rtol=1e-5,
            hint="check axes, padding and what is copied",
        )


def changes_a_fraction(augment: Callable[..., Any], batch: Any, rate: float) -> None:
    """The declared fraction of the examples changes, over many keys."""
    keys = jax.random.split(jax.random.key(5), KEYS)
    found = np.asarray(jax.jit(jax.vmap(lambda key: augment(key, batch)[0]))(keys), np.float64)
    x = _first(batch)
    changed = (found != x).reshape(KEYS, len(x), -1).any(axis=-1)
    fraction, total = changed.mean(), changed.size
    allowed = SIGMAS * np.sqrt(max(rate * (1 - rate), 1e-4) / total)
    if not abs(fraction - rate) <= allowed:
        raise LawError(
            f"changes_a_fraction: {fraction:.3f} of the examples change, and {rate:.3f} must "
            f"within {allowed:.2g}; compare a uniform draw with the rate",
            expected=rate,
            got=fraction,
        )


def augments_as_the_reference(
    augment: Callable[..., Any], batch: Any, like: Callable[..., Any]
) -> None:
    """Over many keys x has the mean and the mean square of the reference at each index."""
    keys = jax.random.split(jax.random.key(6), KEYS)
    ours, theirs = (
        np.asarray(jax.jit(jax.vmap(lambda key, f=f: f(key, batch)[0]))(keys), np.float64)
        for f in (augment, like)
    )
    for what, power in {"mean": 1, "mean square": 2}.items():
        a, b = ours**power, theirs**power
        error = np.hypot(a.std(axis=0), b.std(axis=0)) / np.sqrt(KEYS)
        away = np.abs(a.mean(axis=0) - b.mean(axis=0)) - SIGMAS * error
        if not away.max() <= 1e-5 * (1 + np.abs(b).max()):
            i = np.unravel_index(away.argmax(), away.shape)
            raise LawError(
                f"augments_as_the_reference: over {KEYS} keys the {what} at "
                f"{tuple(map(int, i))} is {a.mean(axis=0)[i]:.5g}, that of the reference "
                f"{b.mean(axis=0)[i]:.5g}; compare ranges, ends and rates",
                expected=b.mean(axis=0)[i],
                got=a.mean(axis=0)[i],
            )
