"""Maths and names on pytrees: norms, counts, paths, masks by path pattern."""

import fnmatch
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

SMALL = 4096  # numbers; a kernel for each leaf up to here costs more than to copy it
Mask = Callable[[PyTree], PyTree]  # a tree -> the same structure with a bool at each leaf


def path_of(keys: tuple[Any, ...]) -> str:
    """The name of a leaf, its keys joined by '/'.

    >>> [path_of(keys) for keys, _ in jax.tree.leaves_with_path({'layers': [{'bias': 0.0}]})]
    ['layers/0/bias']
    """
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def paths(tree: PyTree) -> list[str]:
    """The names of all leaves, in the order of `jax.tree.leaves`.

    >>> paths({'a': 1.0, 'layers': [{'bias': 2.0, 'kernel': 3.0}]})
    ['a', 'layers/0/bias', 'layers/0/kernel']
    """
    return [path_of(keys) for keys, _ in jax.tree.leaves_with_path(tree)]


def map_with_path(function: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:
    """`function(path, leaf, ...)` at every leaf, with the path as a string.

    >>> map_with_path(lambda path, leaf: path, {'a': {'b': 1.0}})
    {'a': {'b': 'a/b'}}
    """
    return jax.tree.map_with_path(lambda keys, *xs: function(path_of(keys), *xs), tree, *rest)


def matching(*patterns: str) -> Mask:
    """A mask of the leaves whose path matches one of `patterns`.

    `*` stands for any characters, `/` included; `?` for one.

    Raises: ValueError, when the mask is made, for a pattern that matches no leaf.

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


def count(tree: PyTree) -> int:
    """How many numbers the leaves hold.

    >>> count({'kernel': jnp.zeros((3, 4)), 'bias': jnp.zeros(4)})
    16
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def length(tree: PyTree) -> int:
    """The size of the first axis of a tree's first leaf: the number of examples, or of steps.

    >>> length((jnp.zeros((5, 2)), jnp.zeros(5)))
    5
    """
    return jax.tree.leaves(tree)[0].shape[0]


def stacked(trees: Sequence[PyTree]) -> PyTree:
    """Trees of one structure and the same shapes as one, along a new first axis.

    >>> stacked([{'w': jnp.array(1)}, {'w': jnp.array(2)}])['w'].tolist()
    [1, 2]
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstacked(tree: PyTree, n: int) -> list[PyTree]:
    """The first n trees that are stacked along a first axis.

    >>> [one['w'].item() for one in unstacked({'w': jnp.array([1, 2])}, 2)]
    [1, 2]
    """
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(n)]


def is_small(leaf: Any) -> bool:
    """Whether a leaf is better kept beside others in one vector.

    >>> is_small(jnp.zeros((64, 64))), is_small(jnp.zeros((64, 65)))
    (True, False)
    """
    number = not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)  # keys have no vectors
    return number and math.prod(leaf.shape) <= SMALL


def ravel(leaves: Sequence[Array]) -> Array:
    """All numbers of the leaves, which have one dtype, as one vector.

    >>> ravel([jnp.array(1.0), jnp.array([[2.0], [3.0]])]).tolist()
    [1.0, 2.0, 3.0]
    """
    return jnp.concatenate([leaf.ravel() for leaf in leaves])


def unravel(vector: Array, like: Sequence[Any]) -> list[Array]:
    """The leaves that lie side by side in `vector`, in the shapes of `like`.

    >>> like = [jnp.zeros((2, 1)), jnp.zeros(())]
    >>> [x.tolist() for x in unravel(jnp.array([1.0, 2.0, 3.0]), like)]
    [[[1.0], [2.0]], 3.0]
    """
    parts = lax.split(vector, [math.prod(leaf.shape) for leaf in like])
    return [part.reshape(leaf.shape) for part, leaf in zip(parts, like, strict=True)]


_joined: ContextVar[bool] = ContextVar("joined", default=False)


@contextmanager
def small_leaves_joined() -> Iterator[None]:
    """Within it, `elementwise` maps small leaves side by side, as one vector.

    For programs that hold small leaves as vectors from one step to the next. The values are the
    same to the last bit; where each leaf is an array of its own, taking them apart again costs
    more than is won.

    >>> with small_leaves_joined():
    ...     elementwise(lambda x: 2 * x, {'a': jnp.array([1.0, 2.0]), 'b': jnp.array(3.0)})['b']
    Array(6., dtype=float32)
    """
    token = _joined.set(True)
    try:
        yield
    finally:
        _joined.reset(token)


def elementwise(function: Callable[..., Any], *trees: PyTree) -> Any:
    """`jax.tree.map` of a function that takes each number by itself, and may give a tuple.

    On a CPU every leaf has kernels of its own, of microseconds each: Adam's were a fifth of the
    step of a network of fifty small layers. Within `small_leaves_joined` the small leaves are one
    vector, and vectors that one such map leaves are the next one's.

    Args:
      function: of arrays of one shape; gives an array of this shape, or a tuple of them.
      trees: at least one; of one structure and the same shapes.

    Returns: a tree of that structure, or a tuple of them.

    >>> tree = {'a': jnp.array([1.0, 2.0]), 'b': jnp.array(3.0)}
    >>> double, square = elementwise(lambda x: (2 * x, x * x), tree)
    >>> double['a'].tolist(), square['b'].tolist()
    ([2.0, 4.0], 9.0)
    """
    joined = _joined.get()
    rows = list(zip(*map(jax.tree.leaves, trees), strict=True))
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        dtypes = tuple(leaf.dtype for leaf in row)
        groups.setdefault(dtypes if joined and is_small(row[0]) else i, []).append(i)
    outputs: Any = jax.tree.structure(None if rows else function(*(jnp.zeros(0) for _ in trees)))
    results: dict[int, Sequence[Array]] = {}
    for places in groups.values():
        alone = len(places) == 1
        columns = zip(*(rows[i] for i in places), strict=True)
        vectors = rows[places[0]] if alone else map(ravel, columns)
        values, outputs = jax.tree.flatten(function(*vectors))
        like = [rows[i][0] for i in places]
        split = [[value] if alone else unravel(value, like) for value in values]
        results.update(zip(places, zip(*split, strict=True), strict=True))
    structure = jax.tree.structure(trees[0])
    mapped = [
        jax.tree.unflatten(structure, [results[i][k] for i in range(len(rows))])
        for k in range(outputs.num_leaves)
    ]
    return jax.tree.unflatten(outputs, mapped)


def squared_norms(*trees: PyTree, of_products: bool = False) -> Float[Array, " trees"]:
    """Sums of the squares of the leaves of each tree, accumulated in at least float32.

    The trees have the same shapes. Their small leaves are summed together: on a CPU each sum is a
    kernel of its own, and would cost a small model a tenth of its step.

    Args:
      of_products: whether the leaves come from products of matrices, as the gradients of kernels
        do; on a CPU, XLA sums those in a sixth of the time if it is asked for another product.

    >>> squared_norms({'a': jnp.array([3.0]), 'b': jnp.array([4.0])}).tolist()
    [25.0]
    """
    rows = [jax.tree.leaves(tree) for tree in trees]
    double = any(leaf.dtype == jnp.float64 for row in rows for leaf in row)
    dtype = jnp.float64 if double else jnp.float32
    total = jnp.zeros(len(trees), dtype)
    large = [[leaf for leaf in row if not is_small(leaf)] for row in rows]
    small = [[leaf.astype(dtype) for leaf in row if is_small(leaf)] for row in rows]
    if any(small):
        beside = [ravel(row) for row in small]
        if is_small(beside[0]):
            total = jnp.square(jnp.stack(beside)).sum(axis=1)
        else:
            large = [[*row, vector] for row, vector in zip(large, beside, strict=True)]
    for leaves in zip(*large, strict=True):
        wide = [leaf.astype(dtype) for leaf in leaves]
        square = _square_of_product if of_products else _square
        total = total + jnp.stack([square(leaf) for leaf in wide])
    return total


def _square(leaf: Array) -> Array:
    return jnp.vdot(leaf, leaf)


def _square_of_product(leaf: Array) -> Array:
    # Not of long rows, which XLA would square into an array of their own; nor of large leaves,
    # should it do so all the same.
    if leaf.ndim < 2 or leaf.shape[-1] > 4096 or leaf.size > 2**22:
        return _square(leaf)
    return jax.lax.platform_dependent(leaf, cpu=_by_rows, default=_square)


def _by_rows(leaf: Array) -> Array:
    rows = jnp.square(leaf).reshape(-1, leaf.shape[-1])
    ones = jnp.ones(rows.shape[1], leaf.dtype)
    return jnp.dot(rows, ones, precision=jax.lax.Precision.HIGHEST).sum()


@jax.custom_jvp
def safe_sqrt(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Square root whose derivative at 0 is 0, not infinite.

    >>> jax.grad(safe_sqrt)(0.0).item()
    0.0
    """
    return jnp.sqrt(x)


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals, tangents):
    # A rule of its own, so that the value costs no comparison: it is in every step of Adam.
    root = safe_sqrt(*primals)
    slope = jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, 1), 0)
    return root, tangents[0] * slope.astype(root.dtype)


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """L2 norm of all leaves taken as one vector; its gradient at 0 is 0.

    >>> global_norm({'a': jnp.array([3.0]), 'b': jnp.array([4.0])}).item()
    5.0
    """
    return safe_sqrt(squared_norms(tree)[0])


def at_least_float32(leaf: Any) -> Any:
    """The dtype for sums, moments and statistics of `leaf`: never narrower than float32.

    >>> at_least_float32(jnp.zeros(2, jnp.bfloat16)).name
    'float32'
    """
    dtype = jnp.result_type(leaf)
    wide = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32
    return dtype if wide else jnp.dtype(jnp.float32)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros for an optimizer's moments: the shapes of `tree`, in at least float32.

    >>> zeros_like({'w': jnp.ones(2, jnp.bfloat16)})['w'].dtype.name
    'float32'
    """
    return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), at_least_float32(leaf)), tree)


def add(params: PyTree, updates: PyTree) -> PyTree:
    """`params + updates`, each leaf in the dtype of its parameter.

    >>> add({'w': jnp.ones(2)}, {'w': jnp.full(2, 0.5)})['w'].tolist()
    [1.5, 1.5]
    """

    def leaf(p, u):
        wide = at_least_float32(p)
        return (p.astype(wide) + u.astype(wide)).astype(p.dtype)

    return jax.tree.map(leaf, params, updates)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every leaf is free of NaN and infinity.

    >>> all_finite({'w': jnp.array([1.0, jnp.nan])}).item()
    False
    """
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def spec(leaf: Any) -> str:
    """Shape and dtype of a leaf in short, for error messages.

    >>> spec(jnp.zeros((3, 4)))
    'float32[3,4]'
    """
    return f"{jnp.result_type(leaf).name}[{','.join(map(str, jnp.shape(leaf)))}]"


def expect_alike(where: str, expected: PyTree, got: PyTree, *, dtypes: bool = False) -> None:
    """Check that two trees have the same leaves.

    Args:
      where: how the message begins; names the function and what the trees are.
      dtypes: also compare the dtypes of the leaves.

    Raises: ValueError that lists every missing, extra and differing leaf.

    >>> expect_alike('adam: params and grads', {'w': jnp.zeros(2)}, {'w': jnp.zeros(3)})
    Traceback (most recent call last):
        ...
    ValueError: adam: params and grads differ:
      w: expected float32[2], got float32[3]
    """
    want = {path_of(k): leaf for k, leaf in jax.tree.leaves_with_path(expected)}
    have = {path_of(k): leaf for k, leaf in jax.tree.leaves_with_path(got)}
    lines = [f"  {p}: expected {spec(want[p])}, got no such leaf" for p in want if p not in have]
    lines += [f"  {p}: expected no such leaf, got {spec(have[p])}" for p in have if p not in want]
    for p in want:
        if p in have and _differ(want[p], have[p], dtypes):
            lines.append(f"  {p}: expected {spec(want[p])}, got {spec(have[p])}")
    if lines:
        raise ValueError(f"{where} differ:\n" + "\n".join(lines))


def _differ(a: Any, b: Any, dtypes: bool) -> bool:
    if jnp.shape(a) != jnp.shape(b):
        return True
    return dtypes and jnp.result_type(a) != jnp.result_type(b)
