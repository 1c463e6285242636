"""Checks of what users pass to the training, and of the losses that their functions return."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fnn import dtypes, tree
from fnn._messages import ARRAYS, describe, foreign, is_array, is_key, refuse
from fnn.expect import did_you_mean, expect_not_paired, spec
from fnn.losses.terms import as_one
from fnn.types import Data, Loss, Terms, TrainState, Weighted

_ARRAY = "an array with the batch axis first"


def expect_key(where: str, key: Any) -> None:
    """Raises unless `key` is a single typed key."""
    if not is_key(key):
        refuse(where, "a typed key", key, "make it with jax.random.key(seed)")
    if key.shape != ():
        raise ValueError(
            f"{where}: expected a single key, got {key.shape} of them; use jax.vmap over keys"
        )


def expect_state(where: str, state: Any, kind: type = TrainState) -> None:
    """Raises unless `state` is one of `kind` whose buffers were not donated."""
    if not isinstance(state, kind):
        refuse(where, f"state to be a {kind.__name__}", state, "use what init or a step returned")
    if any(is_deleted(leaf) for leaf in jax.tree.leaves(state)):
        raise ValueError(
            f"{where}: expected a state whose arrays exist, got one that was donated to an "
            "earlier step (donate_argnums); keep the state that the step returned"
        )


def is_deleted(leaf: Any) -> bool:
    """Whether an array's buffer was donated."""
    known = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return known and leaf.is_deleted()


def expect_pair(where: str, pair: Any) -> tuple[Any, Any]:
    """Inputs and targets; raises for anything but a tuple of two."""
    if isinstance(pair, tuple) and len(pair) == 2:
        return pair[0], pair[1]
    if isinstance(pair, Mapping):
        names = [repr(name) for name in pair] if len(pair) == 2 else ["'x'", "'y'"]
        hint = f"pass a tuple: (batch[{names[0]}], batch[{names[1]}])"
    elif hasattr(pair, "__iter__") and not is_array(pair) and not isinstance(pair, (list, tuple)):
        hint = "give arrays, a data.Streamed, or each batch of the loader to a step of make_step"
    else:
        hint = "write (x, y), each with the batch axis first"
    refuse(where, "a pair (x, y)", pair, hint)


def expect_arrays(where: str, values: Any) -> dict[str, Any]:
    """The arrays of a tree by path; raises for a leaf that is not an array of numbers.

    >>> expect_arrays('data.train.y', np.array(['cat', 'dog']))
    Traceback (most recent call last):
        ...
    ValueError: data.train.y: expected numbers, got <U3[2]; encode them: \
np.unique(y, return_inverse=True)[1]
    """
    paths, leaves = tree.paths(values), jax.tree.leaves(values)
    if not leaves:
        refuse(where, _ARRAY, values, "give at least one array")
    named = dict(zip([where + (f"[{p!r}]" if p else "") for p in paths], leaves, strict=True))
    for name, leaf in named.items():
        if isinstance(values, (list, tuple)) and not is_array(leaf) and not foreign(leaf):
            refuse(where, _ARRAY, values, "convert it: np.asarray(...)")
        _expect_array(name, leaf)
    return named


def _expect_array(name: str, leaf: Any) -> None:
    if not is_array(leaf):
        refuse(name, _ARRAY, leaf, ARRAYS.get(foreign(leaf), "convert it: np.asarray(...)"))
    if not leaf.shape:
        refuse(name, _ARRAY, leaf, "give one example as x[None]")
    if getattr(leaf.dtype, "kind", "") in "OUSTMm":
        hint = "encode them: np.unique(y, return_inverse=True)[1]"
        if leaf.dtype.kind == "O":
            hint = "give an array of one dtype: .astype('float32') of numbers, or encode them"
        refuse(name, "numbers", leaf, hint)


def expect_one_length(where: str, named: dict[str, Any]) -> int:
    """The number of examples; raises for arrays of different lengths."""
    lengths = {name: leaf.shape[0] for name, leaf in named.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{where}: expected one length for all arrays, got {lengths}; check the split"
        )
    return next(iter(lengths.values()))


def expect_batch(where: str, batch: Any) -> None:
    """Raises unless `batch` is a pair of arrays, or of trees of arrays."""
    for name, part in zip("xy", expect_pair(f"{where}: batch", batch), strict=True):
        expect_arrays(f"{where}: batch.{name}", part)


def expect_data(data: Any) -> None:
    """Raises unless `data` is a Data whose training and validation pairs have one structure."""
    if not isinstance(data, Data):
        refuse("data", "a Data", data, "use Data(train=(x, y), valid=(x, y))")
    train, valid = expect_pair("data.train", data.train), expect_pair("data.valid", data.valid)
    for where, pair in (("data.train", train), ("data.valid", valid)):
        for name, part in zip("xy", pair, strict=True):
            expect_arrays(f"{where}.{name}", part)
    for name, ours, theirs in zip("xy", train, valid, strict=True):
        structures: list[Any] = [jax.tree.structure(part) for part in (ours, theirs)]
        if structures[0] != structures[1]:
            raise ValueError(
                f"data.valid.{name}: expected the structure of data.train.{name}, "
                f"{_structure(ours)}, got {_structure(theirs)}; give both the same names"
            )


def _structure(values: Any) -> str:
    if is_array(values) or not isinstance(values, (Mapping, list, tuple)):
        return describe(values)
    return f"{describe(values)} with {', '.join(tree.paths(values)[:8])}"


def expect_known(where: str, *values: Any) -> None:
    """Raises for tracers: a loop of the host needs values."""
    for leaf in jax.tree.leaves(values):
        if isinstance(leaf, jax.core.Tracer):
            hint = "inside jax.jit, vmap or grad use make_run, which is a pure function"
            refuse(where, "known values", leaf, hint)


def expect_store(store: Any) -> None:
    """Raises unless `store` is None or has the methods of a `Store`."""
    methods = ("has", "save", "load", "log", "rows")
    if store is not None and not all(hasattr(store, name) for name in methods):
        path = describe(store) if isinstance(store, str) else "path"
        hint = f"use fnn.checkpoint.RunDir({path})"
        refuse("fit", "store to be a RunDir, or another Store", store, hint)


class _Metrics(dict[str, float]):
    def __missing__(self, name: str) -> float:
        hint = did_you_mean(name, sorted(self), "add it to Recipe.metrics")
        raise ValueError(f"score: expected one of {sorted(self)}, got {name!r}; {hint}")


def expect_score(score: Callable[[dict[str, float]], Any], names: Collection[str]) -> None:
    """Raises for a score that reads an unknown metric, or returns anything but a number."""
    value = score(_Metrics(dict.fromkeys(names, 1.0)))
    if not isinstance(value, (int, float, np.number)) and jnp.shape(value) != ():
        refuse("score", "a number from score(valid)", value, "lower is better")


def weighted_losses(loss: Loss, outputs: Any, targets: Any) -> Weighted:
    """The losses of a batch in at least float32, with weights of 1 where the loss has none."""
    return as_weighted(checked_losses(loss, outputs, targets))


def as_weighted(losses: Weighted | Terms, means: Mapping[str, Array] | None = None) -> Weighted:
    """Terms combined into one value per example, see `terms.as_one`; a Weighted unchanged."""
    return as_one(losses, means) if isinstance(losses, Terms) else losses


def checked_losses(loss: Loss, outputs: Any, targets: Any) -> Weighted | Terms:
    """The losses of a batch; raises unless they are floats with the batch axis first."""
    losses = loss(outputs, targets)
    if not isinstance(losses, Terms):
        return _checked("loss", losses, outputs, targets)
    terms = losses.losses.items()
    return losses._replace(
        losses={n: _checked(f"loss {n!r}", term, outputs, targets) for n, term in terms}
    )


def _checked(where: str, losses: Any, outputs: Any, targets: Any) -> Weighted:
    if isinstance(losses, jax.Array):
        losses = Weighted(losses, jnp.ones_like(losses))
    if not isinstance(losses, Weighted):
        raise ValueError(
            f"{where}: expected an array of per-example losses or a Weighted, got "
            f"{type(losses).__name__}; return one array of shape (batch, ...)"
        )
    (values, weights), batch = losses, tree.length(targets)
    if values.shape[:1] != (batch,) or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"{where}: expected floats of shape ({batch}, ...), one loss per example, got "
            f"{spec(values)}; leave the mean over the batch to the step"
        )
    if weights.shape != values.shape:
        raise ValueError(
            f"{where}: expected a Weighted with one weight per loss, {values.shape}, got weights "
            f"{weights.shape}; broadcast them"
        )
    expect_not_paired(where, values, outputs, targets)
    dtype = dtypes.at_least_float32(values)
    return Weighted(values.astype(dtype), weights.astype(dtype))
