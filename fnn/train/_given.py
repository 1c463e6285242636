"""Checks and conversions of the arguments that users pass."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn import tree
from fnn.advice import ARRAYS, foreign, is_array, is_key, refuse, short
from fnn.expect import did_you_mean
from fnn.types import Data, TrainState


def expect_key(key: Any, where: str = "key") -> None:
    """Refuse what is not one typed key."""
    if not is_key(key):
        refuse(where, "a typed key", key, "make it with jax.random.key(seed)")
    if key.shape != ():
        raise ValueError(
            f"{where}: expected a single key, got {key.shape} of them; use jax.vmap over keys"
        )


def expect_state(where: str, state: Any, kind: type = TrainState) -> None:
    """Refuse what is not a state, and a state whose buffers were given up."""
    if not isinstance(state, kind):
        refuse(where, f"state to be a {kind.__name__}", state, "use what init or a step returned")
    if any(_is_deleted(leaf) for leaf in jax.tree.leaves(state)):
        raise ValueError(
            f"{where}: expected a state whose arrays exist, got one that was given up to an "
            "earlier step (donate_argnums); keep the state that the step returned"
        )


def _is_deleted(leaf: Any) -> bool:
    known = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
    return known and leaf.is_deleted()


def expect_pair(where: str, pair: Any) -> tuple[Any, Any]:
    """Inputs and targets, or an error for what is not a pair of them."""
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
    """The arrays of a tree by path, or an error for a leaf that is not one of numbers.

    >>> expect_arrays('data.train.y', np.array(['cat', 'dog']))
    Traceback (most recent call last):
        ...
    ValueError: data.train.y: expected numbers, got <U3[2]; encode them: \
np.unique(y, return_inverse=True)[1]
    """
    paths, leaves = tree.paths(values), jax.tree.leaves(values)
    if not leaves:
        refuse(where, "an array with the batch axis first", values, "give at least one array")
    named = dict(zip([where + (f"[{p!r}]" if p else "") for p in paths], leaves, strict=True))
    for name, leaf in named.items():
        if isinstance(values, (list, tuple)) and not is_array(leaf) and not foreign(leaf):
            words = "an array with the batch axis first"
            refuse(where, words, values, "convert it: np.asarray(...)")
        _expect_array(name, leaf)
    return named


def _expect_array(name: str, leaf: Any) -> None:
    if not is_array(leaf) or not leaf.shape:
        hint = ARRAYS.get(foreign(leaf), "convert it: np.asarray(...)")
        refuse(name, "an array with the batch axis first", leaf, hint)
    if getattr(leaf.dtype, "kind", "") in "OUSTMm":
        hint = "encode them: np.unique(y, return_inverse=True)[1]"
        if leaf.dtype.kind == "O":
            hint = "give an array of one dtype: .astype('float32') of numbers, or encode them"
        refuse(name, "numbers", leaf, hint)


def expect_batch(where: str, batch: Any) -> None:
    """Refuse what is not a pair of arrays, or trees of them."""
    for name, part in zip("xy", expect_pair(f"{where}: batch", batch), strict=True):
        expect_arrays(f"{where}: batch.{name}", part)


def expect_data(data: Any) -> None:
    """Refuse what is not training and validation data of one structure."""
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
        return short(values)
    names = ", ".join(tree.paths(values)[:8])
    return f"{short(values)} with {names}"


def expect_known(where: str, *values: Any) -> None:
    """Refuse traced values, in a loop of the host."""
    for leaf in jax.tree.leaves(values):
        if isinstance(leaf, jax.core.Tracer):
            hint = "inside jax.jit, vmap or grad use make_run, which is a pure function"
            refuse(where, "known values", leaf, hint)


def expect_store(store: Any) -> None:
    """Refuse what cannot keep a run."""
    wanted = ("has", "save", "load", "log", "rows")
    if store is not None and not all(hasattr(store, name) for name in wanted):
        path = short(store) if isinstance(store, str) else "path"
        refuse(
            "fit",
            "store to be a RunDir, or another Store",
            store,
            f"use fnn.checkpoint.RunDir({path})",
        )


class _Names(dict[str, float]):
    def __missing__(self, name: str) -> float:
        hint = did_you_mean(name, sorted(self), "add it to Recipe.metrics")
        raise ValueError(f"score: expected one of {sorted(self)}, got {name!r}; {hint}")


def expect_score(score: Callable[[dict[str, float]], Any], names: Collection[str]) -> None:
    """Refuse a score that reads a metric that no evaluation has, or is no number."""
    value = score(_Names(dict.fromkeys(names, 1.0)))
    if not isinstance(value, (int, float, np.number)) and jnp.shape(value) != ():
        refuse("score", "a number from score(valid)", value, "lower is better")


def arrays(values: PyTree) -> PyTree:
    """Tensors (of PyTorch, TensorFlow) and lists of numbers as NumPy arrays; JAX's stay.

    Raises: ValueError for lists of unequal length, and for what is no number, such as text.

    >>> arrays({'a': [[1, 2], [3, 4]], 'b': jnp.zeros(2)})['a'].shape
    (2, 2)
    """
    return jax.tree.map(_array, values, is_leaf=is_plain_list)


def is_plain_list(value: Any) -> bool:
    """Whether `value` is a list of numbers or of such lists: data, and not a pytree of arrays.

    >>> is_plain_list([[1, 2], [3, 4]]), is_plain_list([np.ones(2), np.ones(2)])
    (True, False)
    """
    return isinstance(value, list) and not any(
        hasattr(leaf, "shape") for leaf in jax.tree.leaves(value)
    )


def _array(leaf: Any) -> Any:
    if isinstance(leaf, (jax.Array, np.ndarray)):
        return leaf
    try:
        array = _of_torch(leaf) if hasattr(leaf, "detach") else np.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected arrays, tensors or lists of numbers, got {type(leaf).__name__} ({error}); "
            "pad rows to one length"
        ) from error
    if array.dtype.kind in "OSU":
        raise ValueError(
            f"expected arrays, tensors or lists of numbers, got {type(leaf).__name__} of "
            f"{array.dtype.name}; encode text and labels as numbers first"
        )
    return array


def _of_torch(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy itself does not have
        return np.asarray(tensor.float()).astype(jnp.bfloat16)
    return np.asarray(tensor)
