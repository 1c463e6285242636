"""Recurrence of a cell over time, with a derivative by hand.

The derivative that JAX derives from a scan of cells is slow on a CPU: it saves every operand of
every product, some ten arrays for an LSTM, and adds a small product to the whole gradient of the
kernel at every step. Here a step saves only the few slopes (partial derivatives) of its outputs by
its sums, so that the backward pass is one product and one multiplication for each of them, and the
gradient of the kernel is a single product over all steps.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fnn.autodiff import linear_call, varying_like
from fnn.layers.sequence import Carry, masked_scan, select_rows

Slopes = Any  # the partial derivatives of a step: an array or a pytree of them


class Cell(NamedTuple):
    """The parts of a recurrent cell, so that as little as possible happens inside the scan.

    A step adds the product of hidden state and kernel, block by block, to the first of its inputs;
    `advance` computes the new carry from the sums. The inputs are one array for each block instead
    of one for all: on a CPU, XLA would slice the blocks within the loop over elements.
    """

    blocks: int  # of the product, one for each gate
    hidden: Callable[[Carry], Array]  # the part of the carry that the kernel multiplies
    # carry, sums, other inputs -> carry, slopes
    advance: Callable[[Carry, list[Array], Any], tuple[Carry, Slopes]]
    # slopes, gradient by the new carry -> those by the old one, the sums, and the other inputs
    pull: Callable[[Slopes, Carry], tuple[Carry, list[Array], tuple[Array, ...]]]


def cell_step(
    cell: Cell, kernel: Float[Array, "hidden gates"], carry: Carry, inputs: tuple[Array, ...]
) -> tuple[Carry, Array]:
    """One step of a `Cell`; the output is the new hidden state."""
    carry, (hidden, *_) = _sloped_step(cell, kernel, carry, inputs)
    return carry, hidden


def _sloped_step(
    cell: Cell, kernel: Array, carry: Carry, inputs: tuple[Array, ...]
) -> tuple[Carry, tuple[Array, Array, Slopes]]:
    before = cell.hidden(carry)
    products = jnp.split(before @ kernel, cell.blocks, axis=-1)
    sums = [product + x for product, x in zip(products, inputs, strict=False)]
    carry, slopes = cell.advance(carry, sums, inputs[cell.blocks :])
    return carry, (cell.hidden(carry), before, slopes)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def unroll(
    cell: Cell,
    kernel: Float[Array, "hidden gates"],
    carry: Carry,
    inputs: tuple[Array, ...],
    valid: Bool[Array, "batch time"] | None,
) -> tuple[Carry, Array]:
    """A `Cell` over time-major inputs: the last carry, and all hidden states, time-major."""
    carry = varying_like(carry, kernel, inputs, valid)
    return masked_scan(partial(cell_step, cell, kernel), carry, inputs, valid)


def _unroll_jvp(cell: Cell, primals: Any, tangents: Any) -> Any:
    kernel, carry, inputs, valid = primals
    carry, step = varying_like(carry, kernel, inputs, valid), partial(_sloped_step, cell, kernel)
    last, (hidden, before, slopes) = masked_scan(step, carry, inputs, valid)
    saved = (kernel, before, slopes, valid)
    return (last, hidden), linear_call(*_tangents_of(cell), saved, tangents[:3])


unroll.defjvp(_unroll_jvp)


@cache  # because JAX's compilation cache is keyed by the identity of the function
def _tangents_of(cell: Cell) -> tuple[Callable, Callable]:
    """The derivative of `unroll`, and its transpose: the backward pass."""
    return partial(_unroll_tangents, cell), partial(_unroll_cotangents, cell)


def _unroll_tangents(cell: Cell, saved: Any, tangents: Any) -> tuple[Carry, Array]:
    kernel, before, slopes, valid = saved
    dkernel, dcarry, dinputs = tangents

    def step(dcarry: Carry, now: Any) -> tuple[Carry, Array]:
        before, slopes, dinputs = now
        dproduct = cell.hidden(dcarry) @ kernel + before @ dkernel
        products = jnp.split(dproduct, cell.blocks, axis=-1)
        dsums = [product + dx for product, dx in zip(products, dinputs, strict=False)]
        dcarry = _push(cell, slopes, dcarry, dsums, dinputs[cell.blocks :])
        return dcarry, cell.hidden(dcarry)

    return masked_scan(step, dcarry, (before, slopes, dinputs), valid)


def _push(
    cell: Cell, slopes: Slopes, dcarry: Carry, dsums: list[Array], dothers: tuple[Array, ...]
) -> Carry:
    """The derivative of `cell.advance`, as the transpose of `cell.pull`."""
    _, push = jax.vjp(partial(cell.pull, slopes), dcarry)
    return push((dcarry, dsums, dothers))[0]


def _unroll_cotangents(cell: Cell, saved: Any, g: Any) -> Any:
    kernel, before, slopes, valid = saved
    dcarry, dhidden = g
    transposed = kernel.T  # once: products with a transposed operand are slower in every step

    def step(dcarry: Carry, now: Any) -> tuple[Carry, Any]:
        dhidden, slopes, real = now
        dnew, skipped = _split_real(dcarry, real)
        dold, dsums, dothers = cell.pull(slopes, _plus_hidden(cell, dnew, dhidden))
        dproduct = jnp.concatenate(dsums, axis=-1)
        dold = _plus_hidden(cell, dold, dproduct @ transposed)
        dold = dold if skipped is None else jax.tree.map(jnp.add, dold, skipped)
        return dold, (dproduct, dothers)

    steps = (dhidden, slopes, None if valid is None else valid.T)
    dcarry, (dproducts, dothers) = jax.lax.scan(step, dcarry, steps, reverse=True)
    x, dy = (jax.lax.collapse(array, 0, 2) for array in (before, dproducts))
    dkernel = jax.lax.dot_general(x, dy, (((0,), (0,)), ((), ())))
    # An input that is added to the product has the gradient of the product.
    return dkernel, dcarry, (*jnp.split(dproducts, cell.blocks, axis=-1), *dothers)


def _split_real(dcarry: Carry, real: Array | None) -> tuple[Carry, Carry | None]:
    """The parts of a gradient that pass through the step, and that skip it (at padding)."""
    if real is None:
        return dcarry, None
    nothing = jax.tree.map(jnp.zeros_like, dcarry)
    through = jax.tree.map(partial(select_rows, real), dcarry, nothing)
    return through, jax.tree.map(partial(select_rows, real), nothing, dcarry)


def _plus_hidden(cell: Cell, dcarry: Carry, dhidden: Array) -> Carry:
    _, pull = jax.vjp(cell.hidden, dcarry)
    return jax.tree.map(jnp.add, dcarry, *pull(dhidden))
