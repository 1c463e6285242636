"""Custom derivatives for every transform: linear maps with a given transpose, safe roots.

`jax.custom_vjp` defines the backward pass only, so `jax.jvp` and forward-over-reverse fail. A
`jax.custom_jvp` whose tangents are `linear_call`s has both: JAX transposes the tangents, and a
`linear_call` transposes to the function that it was given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, PyTree

from fnn.xla import Dim

LinearFunction = Callable[[Any, Any], Any]  # (residuals, operands) -> linear in the operands
Leaves = Sequence[Any]
Axes = int | tuple[int, ...] | None


def linear_call(
    function: LinearFunction, transpose: LinearFunction, residuals: PyTree, operands: PyTree
) -> PyTree:
    """`function(residuals, operands)`, linear in the operands, with a given transpose.

        <c, function(r, x)> = <transpose(r, c), x>

    All transforms apply; `jax.custom_derivatives.linear_call` lacks `vmap`. Where the residuals
    have tangents, as in second derivatives, the functions themselves are differentiated.

    Args:
      function, transpose: pure functions of their two arguments; hashable, and the same objects at
        every call, since JAX caches compiled programs by them.
      residuals: a pytree of arrays.
      operands: a pytree of float arrays.

    Returns: the result of `function`, a pytree of float arrays.

    >>> scale = lambda factor, x: factor * x
    >>> f = lambda x: linear_call(scale, scale, jnp.float32(3.0), x)
    >>> float(f(2.0)), float(jax.grad(f)(2.0)), jax.vmap(f)(jnp.arange(2.0)).tolist()
    (6.0, 3.0, [0.0, 3.0])
    """
    inputs, structure = jax.tree.flatten(residuals)
    linear, linear_structure = jax.tree.flatten(operands)
    linear = varying_like(linear, inputs)
    there = _OnLeaves(function, structure, linear_structure)
    outputs = jax.tree.structure(jax.eval_shape(there, inputs, linear))
    back = _OnLeaves(transpose, structure, outputs)
    return jax.tree.unflatten(outputs, _bind(inputs, linear, there, back))


def linear_sum(*terms: tuple[LinearFunction, LinearFunction, PyTree, PyTree]) -> PyTree:
    """The sum of `linear_call(*term)` over the terms whose operand is not a `SymbolicZero`.

    For the tangent of a function of several arguments, each with its own linear map.

    >>> scale = lambda factor, x: factor * x
    >>> float(linear_sum((scale, scale, 2.0, 1.0), (scale, scale, 3.0, 1.0)))
    5.0
    """
    parts = [linear_call(*term) for term in terms if not isinstance(term[3], SymbolicZero)]
    return reduce(partial(jax.tree.map, jnp.add), parts)


def with_derivative_of(
    function: Callable[..., PyTree], other: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """`function` with the derivatives of `other`, a function of the same values.

    For a kernel that lacks forward mode or second derivatives, beside its textbook expression.

    >>> f = with_derivative_of(jnp.round, lambda x: 3 * x)
    >>> float(f(1.2)), float(jax.grad(f)(1.2))
    (1.0, 3.0)
    """
    made = jax.custom_jvp(lambda *args: function(*args))

    @made.defjvp
    def derivative(primals: Any, tangents: Any) -> tuple[PyTree, PyTree]:
        return made(*primals), jax.jvp(other, primals, tangents)[1]

    return made


def apply_transpose(
    function: Callable[[Array], Array], shape: tuple[Dim, ...], cotangent: Array, *reads: Array
) -> Array:
    """JAX's transpose of a linear function of one array, applied to a cotangent.

    Args:
      function: from an array to an array of the same dtype.
      shape: of the function's argument.
      reads: arrays that the function closes over.

    >>> apply_transpose(lambda x: 2 * x, (1,), jnp.ones(1)).tolist()
    [2.0]
    """
    cotangent = varying_like(cotangent, reads)
    like = varying_like(jnp.zeros(shape, cotangent.dtype), cotangent)
    return jax.linear_transpose(function, like)(cotangent)[0]


def varying_like(tree: PyTree, *others: PyTree) -> PyTree:
    """Identity; inside `jax.shard_map`, marks the arrays as varying wherever one of `others` does.

    For device-invariant arrays where varying ones are needed: the initial carry of a loop, or an
    operand of a `linear_call`, whose cotangent is then summed over the devices.

    >>> varying_like(jnp.zeros(1), jnp.ones(2)).tolist()
    [0.0]
    """
    types = [jax.typeof(leaf) for leaf in jax.tree.leaves((tree, others))]
    return jax.tree.map(partial(_vary, types), tree)


def _vary(types: Any, leaf: Any) -> Any:
    axes = frozenset().union(*(other.mat.varying for other in types))
    missing = tuple(sorted(axes - jax.typeof(leaf).mat.varying))
    return jax.lax.pcast(leaf, missing, to="varying")


@jax.custom_jvp
def safe_sqrt(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Square root with derivative 0 at 0.

    >>> jax.grad(safe_sqrt)(0.0).item()
    0.0
    """
    return jnp.sqrt(x)


@safe_sqrt.defjvp
def _safe_sqrt_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    root = safe_sqrt(*primals)
    slope = jnp.where(root > 0, 0.5 / jnp.where(root > 0, root, 1), 0)
    return root, tangents[0] * slope.astype(root.dtype)


def safe_norm(x: Float[Array, "..."], axis: Axes = None) -> Float[Array, "..."]:
    """L2 norm over `axis` (None: all) with keepdims; its derivative at 0 is 0.

        ||x|| = m ||x / m||,   m = max |x|

    so that no square overflows or underflows.

    >>> safe_norm(jnp.array([3e30, 4e30])).tolist() == [float(jnp.float32(5e30))]
    True
    """
    scale = magnitude(x, axis)
    return scale * safe_sqrt(jnp.square(x / scale).sum(axis=axis, keepdims=True))


def magnitude(x: Float[Array, "..."], axis: Axes = None) -> Float[Array, "..."]:
    """max |x| over `axis` (None: all) with keepdims, constant under differentiation.

    As a divisor: 1 where x is all 0 or not finite.

    >>> magnitude(jnp.array([[1.0, -2.0], [0.0, 0.0]]), 1).tolist()
    [[2.0], [1.0]]
    """
    largest = jnp.abs(jax.lax.stop_gradient(x)).max(axis=axis, keepdims=True, initial=0)
    # XLA multiplies by the reciprocal, which must not be a denormal: those are flushed to 0.
    tiny = float(jnp.finfo(x.dtype).tiny)
    usable = (largest > 0) & jnp.isfinite(largest)
    return jnp.where(usable, jnp.clip(largest, tiny, 1 / tiny), 1)


def huge(x: Float[Array, "..."], axis: Axes = None) -> Float[Array, "..."]:
    """`magnitude` where a sum of squares of x may overflow, else 1, which keeps x bitwise.

    >>> huge(jnp.array([[3.0, 1.0], [1e20, 0.0]]), 1).tolist() == [[1.0], [jnp.float32(1e20)]]
    True
    """
    largest = magnitude(x, axis)
    return jnp.where(largest > float(jnp.finfo(x.dtype).max) ** 0.25, largest, 1)


@dataclass(frozen=True)
class _OnLeaves:
    """A function of two trees as a function of their leaves; hashable."""

    function: LinearFunction
    residuals: Any  # tree structures
    operands: Any

    def __call__(self, residuals: Leaves, operands: Leaves) -> PyTree:
        given = jax.tree.unflatten(self.residuals, residuals)
        return self.function(given, jax.tree.unflatten(self.operands, operands))


@dataclass(frozen=True)
class _Batched:
    """A function of leaves under `vmap`, with the batch axis of each argument: 0 or None."""

    function: Callable[[Leaves, Leaves], PyTree]
    residuals: tuple[int | None, ...]
    operands: tuple[int | None, ...] | None  # None: all are batched
    summed: tuple[int, ...] = ()  # the outputs to sum over the batch

    def __call__(self, residuals: Leaves, operands: Leaves) -> Leaves:
        axes = (list(self.residuals), 0 if self.operands is None else list(self.operands))
        outputs = jax.tree.leaves(jax.vmap(self.function, axes)(residuals, operands))
        return [y.sum(axis=0) if i in self.summed else y for i, y in enumerate(outputs)]


_linear_call = Primitive("fnn_linear_call")
_linear_call.multiple_results = True


def _bind(residuals: Leaves, operands: Leaves, there: Any, back: Any) -> Leaves:
    operands = varying_like(operands, residuals)
    jaxpr = jax.make_jaxpr(there)(residuals, operands)  # cached by `there`
    maps = {"jaxpr": jaxpr, "there": there, "back": back, "split": len(residuals)}
    return _linear_call.bind(*residuals, *operands, **maps)


def _evaluate(*leaves: Any, jaxpr: Any, **maps: Any) -> Leaves:
    return jaxpr_as_fun(jaxpr)(*leaves)


def _jvp(
    primals: Leaves, tangents: Leaves, *, jaxpr: Any, there: Any, back: Any, split: int
) -> tuple[Leaves, Leaves]:
    moving = [i for i, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]
    if min(moving) >= split:
        residuals, operands = list(primals[:split]), list(primals[split:])
        given = list(map(ad.instantiate_zeros, tangents[split:]))
        return _bind(residuals, operands, there, back), _bind(residuals, given, there, back)

    def outputs(*moved: Array) -> Leaves:
        given = list((dict(enumerate(primals)) | dict(zip(moving, moved, strict=True))).values())
        return jax.tree.leaves(there(given[:split], given[split:]))

    point, direction = ([leaves[i] for i in moving] for leaves in (primals, tangents))
    return jax.jvp(outputs, point, direction)


def _transpose(
    cotangents: Leaves, *primals: Any, jaxpr: Any, there: Any, back: Any, split: int
) -> Leaves:
    residuals, operands = list(primals[:split]), jaxpr.in_avals[split:]
    given = _bind(residuals, list(map(ad.instantiate_zeros, cotangents)), back, there)
    wanted, got = ([(x.shape, x.dtype.name) for x in leaves] for leaves in (operands, given))
    if wanted != got:
        raise ValueError(
            f"linear_call: expected a transpose that gives cotangents like the operands, {wanted}, "
            f"got {got}; it takes (residuals, cotangents of the outputs)"
        )
    # Constant operands need no cotangent.
    linear = map(ad.is_undefined_primal, primals[split:])
    cotangents = [_vary([type_], ct) for type_, ct in zip(operands, given, strict=True)]
    return [None] * split + [ct if x else None for x, ct in zip(linear, cotangents, strict=True)]


def _batch(
    leaves: Any, dims: Any, *, jaxpr: Any, there: Any, back: Any, split: int
) -> tuple[Leaves, list[int]]:
    pairs = list(zip(leaves, dims, strict=True))
    leaves = [leaf if dim is None else jnp.moveaxis(leaf, dim, 0) for leaf, dim in pairs]
    axes = tuple(None if dim is None else 0 for dim in dims)
    # The cotangent of an unbatched operand is summed over the batch.
    shared = tuple(i for i, axis in enumerate(axes[split:]) if axis is None)
    batched = _Batched(there, axes[:split], axes[split:])
    transposed = _Batched(back, axes[:split], None, shared)
    outputs = _bind(leaves[:split], leaves[split:], batched, transposed)
    return outputs, [0] * len(outputs)


_linear_call.def_impl(jax.jit(_evaluate, static_argnames=("jaxpr", "there", "back", "split")))
_linear_call.def_abstract_eval(lambda *types, jaxpr, **maps: jaxpr.out_avals)
ad.primitive_jvps[_linear_call] = _jvp
ad.primitive_transposes[_linear_call] = _transpose
batching.primitive_batchers[_linear_call] = _batch
mlir.register_lowering(_linear_call, mlir.lower_fun(_evaluate, multiple_results=True))
