"""Pytrees of parameters: paths, masks by path pattern, norms, arithmetic."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from fnn import xla
from fnn.autodiff import magnitude, safe_sqrt, varying_like
from fnn.dtypes import at_least_float32, wide, widest

Mask = Callable[[PyTree], PyTree]  # tree -> a bool for each leaf


def path_of(keys: tuple[Any, ...]) -> str:
    """The path of a leaf as a string, its keys joined by '/'.

    >>> [path_of(keys) for keys, _ in jax.tree.leaves_with_path({'layers': [{'bias': 0.0}]})]
    ['layers/0/bias']
    """
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def paths(tree: PyTree) -> list[str]:
    """Paths of all leaves, in the order of `jax.tree.leaves`.

    >>> paths({'a': 1.0, 'layers': [{'bias': 2.0, 'kernel': 3.0}]})
    ['a', 'layers/0/bias', 'layers/0/kernel']
    """
    return [path_of(keys) for keys, _ in jax.tree.leaves_with_path(tree)]


def map_with_path(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """`jax.tree.map` of `function(path, leaf, *rest)`, with the path as a string.

    >>> map_with_path(lambda path, leaf: path, {'a': {'b': 1.0}})
    {'a': {'b': 'a/b'}}
    """
    return jax.tree.map_with_path(lambda keys, *xs: function(path_of(keys), *xs), tree, *rest)


def matching(*patterns: str) -> Mask:
    """A mask function that marks the leaves whose path matches one of `patterns`.

    `*` matches any characters, including `/`; `?` matches one.

    Raises: ValueError, when applied to a tree, for a pattern that matches no leaf.

    >>> matching('*kernel')({'layers': [{'bias': 0.0, 'kernel': 1.0}]})
    {'layers': [{'bias': False, 'kernel': True}]}
    """

    def mask(tree: PyTree) -> PyTree:
        names = paths(tree)
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"tree.matching: expected {pattern!r} to match a leaf, got none among {names}; "
                    "correct the pattern ('*' stands for any characters)"
                )
        return map_with_path(
            lambda path, _: any(fnmatch.fnmatchcase(path, p) for p in patterns), tree
        )

    return mask


def nbytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, or of the arrays that its ShapeDtypeStructs describe.

    >>> nbytes({'w': jnp.zeros((2, 3)), 'b': jnp.zeros(3, jnp.bfloat16)})
    30
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def count(tree: PyTree) -> int:
    """Total number of elements in the tree.

    >>> count({'kernel': jnp.zeros((3, 4)), 'bias': jnp.zeros(4)})
    16
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def length(tree: PyTree) -> int:
    """Size of the first axis (of the first leaf): the number of examples or steps.

    >>> length((jnp.zeros((5, 2)), jnp.zeros(5)))
    5
    """
    return jax.tree.leaves(tree)[0].shape[0]


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Stacks trees of the same structure and shapes along a new first axis.

    >>> stack([{'w': jnp.array(1)}, {'w': jnp.array(2)}])['w'].tolist()
    [1, 2]
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: PyTree, n: int) -> list[PyTree]:
    """The first n slices of a stacked tree, as a list of trees.

    >>> [one['w'].item() for one in unstack({'w': jnp.array([1, 2])}, 2)]
    [1, 2]
    """
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(n)]


def squared_norms(*trees: PyTree) -> Float[Array, " trees"]:
    """Squared L2 norm of each tree, in at least float32; the trees have the same shapes.

    >>> squared_norms({'a': jnp.array([3.0]), 'b': jnp.array([4.0])}).tolist()
    [25.0]
    """
    rows = [jax.tree.leaves(tree) for tree in trees]
    dtype = widest(trees)
    if not rows[0]:
        return jnp.zeros(len(trees), dtype)
    return xla.sums_of_squares(*([leaf.astype(dtype) for leaf in row] for row in rows))


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """L2 norm of all leaves as one vector, safe against overflow; its gradient at 0 is 0.

    >>> global_norm({'a': jnp.array([3.0]), 'b': jnp.array([4.0])}).item()
    5.0
    """
    scale, norm = scaled_norm(tree)
    return scale * norm


def scaled_norm(tree: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(scale, norm) with scale * norm the L2 norm of all leaves and no square out of range.

    The scale is 1, or the largest |x| where squares would overflow or underflow; it is constant
    under differentiation.

    >>> scale, norm = scaled_norm({'a': jnp.array([3e30]), 'b': jnp.array([4e30])})
    >>> norm.item()
    1.25
    """
    leaves = jax.tree.leaves(wide(tree))
    total = squared_norms(leaves)[0]
    info = jnp.finfo(total.dtype)
    # Above this bound, underflowed squares are below the rounding error of the sum.
    ordinary = (total > info.tiny / info.eps**2) & jnp.isfinite(total)
    one = varying_like(jnp.ones_like(total), total)

    def rescaled() -> tuple[Array, Array]:
        # Not a maximum of `magnitude` per leaf: that would hide an infinite leaf.
        largest = [jnp.abs(lax.stop_gradient(x)).max(initial=0).astype(total.dtype) for x in leaves]
        scale = magnitude(jnp.stack([jnp.zeros_like(total), *largest]))[0]
        small = [x / scale.astype(x.dtype) for x in leaves]
        return scale, safe_sqrt(squared_norms(small)[0])

    return lax.cond(ordinary, lambda: (one, safe_sqrt(total)), rescaled)


def dot(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """Inner product of two trees as vectors, in at least float32.

    >>> dot({'a': jnp.array([1.0, 2.0]), 'b': 3.0}, {'a': jnp.array([1.0, 0.5]), 'b': -1.0}).item()
    -1.0
    """
    dtype, pairs = widest((a, b)), zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    products = [jnp.vdot(jnp.asarray(x, dtype), jnp.asarray(y, dtype)) for x, y in pairs]
    return jnp.stack([jnp.zeros((), dtype), *products]).sum()


def scale(factor: Any, tree: PyTree) -> PyTree:
    """Multiplies every leaf by `factor`, in the dtype of the leaf.

    >>> scale(jnp.float32(0.5), {'w': jnp.ones(2, jnp.bfloat16)})['w'].tolist()
    [0.5, 0.5]
    """
    return jax.tree.map(lambda leaf: jnp.asarray(factor, leaf.dtype) * leaf, tree)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros of the shapes of `tree` in at least float32, such as an optimizer's moments.

    >>> zeros_like({'w': jnp.ones(2, jnp.bfloat16)})['w'].dtype.name
    'float32'
    """
    return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), at_least_float32(leaf)), tree)


def add(params: PyTree, updates: PyTree) -> PyTree:
    """`params + updates`, each leaf in the dtype of its parameter.

    >>> add({'w': jnp.ones(2)}, {'w': jnp.full(2, 0.5)})['w'].tolist()
    [1.5, 1.5]
    """
    return jax.tree.map(lambda p, u: (wide(p) + wide(u)).astype(p.dtype), params, updates)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether no leaf holds a NaN or infinity.

    >>> all_finite({'w': jnp.array([1.0, jnp.nan])}).item()
    False
    """
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
