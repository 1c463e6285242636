"""Workarounds for XLA: the same values by another program. The only module that knows the compiler.

Each function states the value it computes, the compiler behavior it works around, the platform
and version in which that was seen, and the benchmark row that shows the gain; one that gains less
than 3 % of time or 5 % of memory is deleted. But for `on_one_device`, none acts on a GPU or TPU:
they test the platform at lowering or, where shapes change, JAX's default backend.

`with plain():` replaces all of them by the textbook expression; FNN_XLA_PLAIN=1 in the environment
does so for a whole process.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import export, lax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import batching, mlir
from jaxtyping import Array, Float, Int, PyTree

from fnn.types import PRNGKey

Dim = Any  # a size in a shape: an int, or symbolic in an exported program

_IS_PLAIN = os.environ.get("FNN_XLA_PLAIN", "") not in ("", "0")
_plain = jax.make_user_context(default_value=_IS_PLAIN)


@contextmanager
def plain() -> Iterator[None]:
    """Context in which every function of this module is the textbook expression.

    JAX's caches include it in their keys: a jitted function is traced again inside.

    >>> with plain():
    ...     is_plain()
    True
    """
    with _plain(True):
        yield


def is_plain() -> bool:
    """Whether the workarounds are off.

    >>> with plain():
    ...     is_plain()
    True
    """
    return _plain.value


def _acts() -> bool:
    """Whether workarounds that are chosen at trace time are active: JAX's backend is a CPU."""
    return not is_plain() and jax.default_backend() == "cpu"


def is_small(leaf: Any) -> bool:
    """Whether a leaf has at most 4,096 elements, so that a separate kernel costs more than a copy.

    >>> is_small(jnp.zeros((64, 64))), is_small(jnp.zeros((64, 65)))
    (True, False)
    """
    return math.prod(leaf.shape) <= 4096


def is_symbolic(size: Dim) -> bool:
    """Whether a size is symbolic (in an exported program), so that it cannot be compared.

    Code that depends on a batch's size, such as chunking, then takes a form for every size.

    >>> is_symbolic(export.symbolic_shape('batch, 3')[0]), is_symbolic(8)
    (True, False)
    """
    return export.is_symbolic_dim(size)


def sums_of_squares(*rows: Sequence[Array]) -> Float[Array, " rows"]:
    """Sum of the squares of all elements of each list of arrays.

    The lists have the same shapes and one dtype. XLA:CPU compiles each sum into a separate kernel
    of some microseconds: here small leaves are concatenated first. It sums the squares of a large
    matrix on one core: here by a product with ones, which uses all cores and fuses with the loop
    before it. JAX 0.10; `training.py`, rows `deep`, `mlp`.

    >>> sums_of_squares([jnp.array([3.0]), jnp.array([4.0])]).tolist()
    [25.0]
    """
    if is_plain():
        return _sums_leaf_by_leaf(rows)
    return lax.platform_dependent(rows, cpu=_sums_joined, default=_sums_leaf_by_leaf)


def _sums_leaf_by_leaf(rows: Sequence[Sequence[Array]]) -> Array:
    return jnp.stack([jnp.stack([jnp.square(x).sum() for x in row]).sum() for row in rows])


def _sums_joined(rows: Sequence[Sequence[Array]]) -> Array:
    small = [[x.ravel() for x in row if is_small(x)] for row in rows]
    large = [[x for x in row if not is_small(x)] for row in rows]
    total = jnp.zeros(len(rows), rows[0][0].dtype)
    if small[0]:
        total += jnp.square(jnp.stack([jnp.concatenate(row) for row in small])).sum(axis=1)
    for leaves in zip(*large, strict=True):
        total += jnp.stack([_sum_by_product(x) for x in leaves])
    return total


def _sum_by_product(x: Array) -> Array:
    # Not for long rows or huge leaves, whose squares XLA would materialize.
    if x.ndim < 2 or x.shape[-1] > 4096 or x.size > 2**22:
        return jnp.vdot(x, x)
    squares = lax.collapse(jnp.square(x), 0, x.ndim - 1)
    ones = jnp.ones(squares.shape[1], x.dtype)
    return jnp.dot(squares, ones, precision=lax.Precision.HIGHEST).sum()


def by_rows(function: Callable[[Any], Array], x: Any) -> Float[Array, "*batch out"]:
    """Applies `function`, (rows, in) to (rows, out), to x of shape (*batch, in).

    For inputs of rank > 2, XLA:CPU materializes a transposed copy of the activations for the
    gradient of a kernel and recomputes their derivative. Here the leading axes are merged first.
    JAX 0.10; `training.py`, row `gpt`.

    >>> by_rows(lambda rows: rows.sum(axis=-1, keepdims=True), jnp.ones((2, 3, 4))).shape
    (2, 3, 1)
    """
    if x.ndim == 2 or not _acts():
        return function(x)
    y = function(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))
    return y.reshape(*x.shape[:-1], y.shape[-1])


def rows_times(x: Any, matrix: Any) -> Float[Array, "*batch out"]:
    """x M, the product of x (*batch, in) and M (in, out); see `by_rows`.

    >>> rows_times(jnp.ones((2, 3, 4)), jnp.ones((4, 5))).shape
    (2, 3, 5)
    """
    return by_rows(lambda r: lax.dot_general(r, matrix, (((r.ndim - 1,), (0,)), ((), ()))), x)


def written_after(value: Array, *readers: Array) -> Array:
    """Identity on `value` (bitwise), with a data dependency on `readers`.

    For a new state that overwrites an input of the readers: XLA:CPU may schedule its loop before
    theirs, and then copies the old state. Here the value depends on one element of each reader.
    JAX 0.10; `optimizers.py`, rows `adopt`, `adan`, `prodigy`.

    >>> written_after(jnp.array([3.0]), jnp.array([jnp.nan])).tolist()
    [3.0]
    """
    if is_plain():
        return value
    return lax.platform_dependent(value, *readers, cpu=_written_after, default=lambda v, *_: v)


def _written_after(value: Array, *readers: Array) -> Array:
    one = jnp.ones((), value.dtype)
    for reader in readers:
        element = lax.stop_gradient(reader.ravel()[:1].sum())
        one += 0 * jnp.where(jnp.isfinite(element), element, 0).astype(value.dtype)
    return one * value


def in_memory(i: Int[Array, ""], slices: PyTree) -> PyTree:
    """Identity on `slices`, the i-th slices of stacked arrays; materializes the small ones.

    XLA:CPU fuses the slicing into each loop that reads a slice, which slows these loops down five
    to ten times. Nothing is fused across a conditional: here the small leaves pass through one
    that is always taken. JAX 0.10; `training.py`, row `stacked`.

    >>> in_memory(jnp.int32(1), {'bias': jnp.array([1.0, 2.0])})['bias'].tolist()
    [1.0, 2.0]
    """
    leaves, structure = jax.tree.flatten(slices)
    small = {n: leaf for n, leaf in enumerate(leaves) if is_small(leaf)}
    if is_plain() or not small:
        return slices
    small = _through_conditional(i, small)
    return jax.tree.unflatten(structure, [small.get(n, leaf) for n, leaf in enumerate(leaves)])


@jax.custom_jvp  # the identity on tangents
def _through_conditional(i: Array, leaves: Any) -> Any:
    def on_cpu(i: Array, leaves: Any) -> Any:
        return lax.cond(i >= 0, lambda now: now, partial(jax.tree.map, jnp.zeros_like), leaves)

    return lax.platform_dependent(i, leaves, cpu=on_cpu, default=lambda i, leaves: leaves)


@_through_conditional.defjvp
def _through_conditional_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return _through_conditional(*primals), tangents[1]


def draw_each(init: Callable[[PRNGKey], PyTree], key: PRNGKey, indices: Int[Array, " n"]) -> PyTree:
    """`init(fold_in(key, index))` for each index, stacked along a new first axis.

    XLA:CPU compiles batched random bits for twice as long, and unrolled ones n times as long: here
    they are drawn in a loop. JAX 0.10; `stack_compile.py`.

    >>> draw_each(jax.random.normal, jax.random.key(0), jnp.arange(3)).shape
    (3,)
    """
    over = partial(partial, lax.map) if _acts() else jax.vmap
    return over(lambda index: init(jax.random.fold_in(key, index)))(indices)


def draw_flat(
    draw: Callable[[PRNGKey, tuple[int, ...]], Array], key: PRNGKey, shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """`draw(key, shape)` (bitwise).

    XLA:CPU unrolls loops over a short last axis, with a whole random generator in each copy, and
    compiles them four times as long. Here such shapes are drawn as a padded vector; each element
    depends on its index only (`jax_threefry_partitionable`). JAX 0.10; `starts.py`, row `cnn`.

    >>> drawn = draw_flat(jax.random.normal, jax.random.key(0), (3, 2))
    >>> bool((drawn == jax.random.normal(jax.random.key(0), (3, 2))).all())
    True
    """
    n = math.prod(shape)
    # Shapes of more than 2^20 elements may be sharded and keep their axes.
    if not _acts() or not shape or shape[-1] >= 128 or n > 2**20:
        return draw(key, shape)
    return draw(key, (-(-n // 64) * 64,))[:n].reshape(shape)


def on_one_device(
    function: Callable[..., PyTree], otherwise: Callable[..., PyTree], *args: PyTree
) -> PyTree:
    """`function(*args)` in a program for one device, or inside `jax.shard_map`; else `otherwise`.

    Both compute the same values; the choice is made at lowering. XLA cannot partition the kernels
    of Pallas, and JAX refuses to lower them for several devices. JAX 0.10, TPU. It has no
    derivative: `autodiff.with_derivative_of` gives it one.

    >>> on_one_device(lambda x: x + 1, lambda x: 1 + x, jnp.zeros(2)).tolist()
    [1.0, 1.0]
    """
    leaves, structure = jax.tree.flatten(args)
    on_leaves = [
        lambda *leaves, f=f: jax.tree.leaves(f(*jax.tree.unflatten(structure, leaves)))
        for f in (function, otherwise)
    ]
    one, several = (jax.make_jaxpr(f)(*leaves) for f in on_leaves)
    outputs = jax.tree.structure(jax.eval_shape(otherwise, *args))
    return jax.tree.unflatten(outputs, _on_one_device.bind(*leaves, one=one, several=several))


def _lower_by_devices(ctx: Any, *leaves: Any, one: Any, several: Any) -> Any:
    jaxpr = several if _is_partitioned(ctx.module_context.axis_context) else one
    return mlir.lower_fun(jaxpr_as_fun(jaxpr), multiple_results=True)(ctx, *leaves)


def _is_partitioned(axes: Any) -> bool:
    """Whether XLA partitions the program: one for several devices outside of manual axes."""
    if hasattr(axes, "num_devices"):
        return axes.num_devices != 1
    mesh = getattr(axes, "mesh", None)
    manual = set(getattr(axes, "manual_axes", ())) | set(getattr(mesh, "manual_axes", ()))
    return mesh is not None and manual != set(mesh.axis_names)


def _batch_by_devices(leaves: Any, dims: Any, *, one: Any, several: Any) -> Any:
    moved = [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(leaves, dims, strict=True)]
    axes = tuple(None if d is None else 0 for d in dims)
    one, several = (
        jax.make_jaxpr(jax.vmap(jaxpr_as_fun(jaxpr), axes))(*moved) for jaxpr in (one, several)
    )
    outputs = _on_one_device.bind(*moved, one=one, several=several)
    return outputs, [0] * len(outputs)


_on_one_device = Primitive("fnn_on_one_device")
_on_one_device.multiple_results = True
_on_one_device.def_impl(
    jax.jit(
        lambda *leaves, one, several: jaxpr_as_fun(one)(*leaves),
        static_argnames=("one", "several"),
    )
)
_on_one_device.def_abstract_eval(lambda *types, one, several: several.out_avals)
batching.primitive_batchers[_on_one_device] = _batch_by_devices
mlir.register_lowering(_on_one_device, _lower_by_devices)
