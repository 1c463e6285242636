"""A model under test: its parameters, its compiled programs and its gradients, made once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn.dtypes import is_float
from fnn.testing._compare import entries, fresh
from fnn.types import Model, ModelState, Params


def key_of(seed: int = 0) -> Any:
    """A new key."""
    return jax.random.key(seed)


def compiled(model: Model) -> Any:
    """The jitted apply; all laws wrap the same function, so JAX compiles it once."""
    return jax.jit(model.apply, static_argnames="train")


def start(model: Model, x: Any) -> tuple[Params, ModelState]:
    """Initial parameters, perturbed, and the initial model state."""
    params, state = jax.jit(model.init)(key_of(), x)
    return perturbed(params, seed=0), state


def perturbed(params: Params, seed: int) -> Params:
    """Parameters plus noise: zeros and ones would hide an unused bias or scale."""
    generator = np.random.default_rng(seed)

    def leaf(p: Any) -> Any:
        if not is_float(p):
            return p
        noise = generator.normal(size=p.shape) * 0.1
        return jnp.asarray(np.asarray(p) + noise.astype(p.dtype))

    return jax.tree.map(leaf, params)


def shapes_of(x: PyTree) -> PyTree:
    """The ShapeDtypeStructs of an example."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)


def weighted(outputs: PyTree) -> Any:
    """The randomly weighted sum of all floats of the outputs, a scalar."""
    total: Any = jnp.float32(0)
    for i, leaf in enumerate(jax.tree.leaves(outputs)):
        if is_float(leaf):
            weights = np.random.default_rng(i).uniform(0.5, 1.5, size=jnp.shape(leaf))
            total = total + jnp.sum(jnp.asarray(weights, leaf.dtype) * leaf).astype(jnp.float32)
    return total


@functools.lru_cache(maxsize=16)
def gradient(model: Model, train: bool) -> Callable[..., tuple[Params, list[Any]]]:
    """`(params, state, x, key) -> gradients` of a weighted sum of outputs and new state.

    By the parameters, and by the float leaves of x.
    """

    def total(floats: Any, params: Params, state: ModelState, x: Any, key: Any) -> Any:
        moved, leaves = floats
        params, x = replaced(params, moved), replaced(x, leaves)
        options = {"key": key} if train else {}
        y, new = model.apply(params, state, x, **options, train=train)
        return weighted((y, new) if train else y)

    @jax.jit
    def at(params: Params, state: ModelState, x: Any, key: Any) -> Any:
        return jax.grad(total)((floats_of(params), floats_of(x)), params, state, x, key)

    return lambda params, state, x: at(params, state, x, fresh(key_of(2)))


def floats_of(tree: PyTree) -> list[Any]:
    """The floating-point leaves."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_float(leaf)]


def replaced(tree: PyTree, floats: list[Any]) -> PyTree:
    """The tree with other floating-point leaves."""
    new = iter(floats)
    return jax.tree.map(lambda leaf: next(new) if is_float(leaf) else leaf, tree)


def outputs(
    model: Model, params: Params, state: ModelState, x: Any, *, train: bool, seed: int = 2
) -> tuple[Any, ModelState]:
    """Outputs and new state, compiled."""
    options = {"key": key_of(seed)} if train else {}
    return compiled(model)(params, state, x, **options, train=train)


def is_noisy(model: Model, x: Any) -> bool:
    """Whether two keys give different outputs with train=True."""
    params, state = start(model, x)
    first, other = (outputs(model, params, state, x, train=True, seed=s)[0] for s in (2, 3))
    return not equal(first, other)


def equal(a: PyTree, b: PyTree) -> bool:
    """Whether all entries are bitwise equal, NaN included."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(entries(p), entries(q), equal_nan=is_float(p)) for p, q in pairs)
