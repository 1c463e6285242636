"""The error that rounding may cause, from the conditioning of the computation.

Two programs of one formula round differently. A backward stable program gives the exact result for
inputs that are a few roundings away, so the results of such inputs show how far apart two of them
may be: far for an ill-conditioned formula, close to nothing for a leaf that is zero but for
rounding.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from fnn._messages import is_key
from fnn.dtypes import is_float
from fnn.testing._compare import entries, fresh

# Reordered sums in three-layer transformers are up to 8 of these units apart, and a model of thirty
# expanding layers 11; a wrong formula is at least thousands.
FACTOR = 30.0
PERTURBATIONS = 3


def of(function: Callable[..., Any], *args: Any, factor: float = FACTOR) -> PyTree:
    """The error allowed in each output of `function(*args)`, a float for each leaf.

        factor (max_k |f(x (1 + u d_k)) - f(x)| + u max |f(x)|) + u max over all leaves

    with u one rounding of the dtype and d_k random in {-1, 0, 1}. Outputs that are not floats must
    be equal unless one of the perturbations changes them.

    >>> bool(1e-6 < of(jnp.sin, jnp.float32(1.0)) < 1e-5)
    True
    """
    base = function(*fresh(args))
    moved = [function(*fresh(perturbed(args, seed))) for seed in range(PERTURBATIONS)]
    return between(base, moved, factor=factor)


def between(base: PyTree, moved: list[PyTree], *, factor: float = FACTOR) -> PyTree:
    """The same from the results at `x` and at perturbed `x`."""
    largest = max(
        (float(_largest(leaf)) for leaf in jax.tree.leaves(base) if is_float(leaf)), default=0.0
    )

    def leaf(a: Any, *others: Any) -> np.float64:
        if not is_float(a):
            changed = any((entries(a) != entries(b)).any() for b in others)
            return np.float64(np.inf if changed else 0)
        unit = float(jnp.finfo(jnp.result_type(a)).eps)
        change = max(_largest(_finite(entries(b) - entries(a))) for b in others)
        return np.float64(factor * (change + unit * _largest(a)) + unit * largest)

    return jax.tree.map(leaf, base, *moved)


def perturbed(args: PyTree, seed: int) -> PyTree:
    """Every float of `args` one rounding up, down, or as it was; zeros stay."""

    def leaf(i: int, x: Any) -> Any:
        if is_key(x) or not hasattr(x, "dtype") or not is_float(x):
            return x
        unit = float(jnp.finfo(x.dtype).eps)
        d = np.random.default_rng((seed, i)).integers(-1, 2, size=np.shape(x))
        wide = np.asarray(x, np.float64) * (1 + unit * d)
        return jnp.asarray(wide.astype(x.dtype))

    leaves, structure = jax.tree.flatten(args)
    return jax.tree.unflatten(structure, [leaf(i, x) for i, x in enumerate(leaves)])


def _largest(leaf: Any) -> float:
    return float(np.abs(_finite(entries(leaf))).max(initial=0.0))


def _finite(values: Any) -> np.ndarray:
    return np.asarray(np.where(np.isfinite(values), values, 0.0))
