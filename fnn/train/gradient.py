"""The gradient of a batch by its parts: in turn to save memory, or abreast to save time."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.train.check import expect_positive
from fnn.types import BatchLoss, Gradient, ModelState, Pair, Params, PRNGKey, whole_batch


def microbatches(parts: int) -> Gradient:
    """Gradient accumulation: the gradient of a batch as the mean of those of its parts.

        loss = sum_i loss(part i) / parts,   g = sum_i g(part i) / parts

    For the `gradient` of a recipe. The parts are equal slices of the batch after augmentation, seen
    one after another inside the step, so the activations in memory are those of one part. Optimizer
    and schedule see one step. Loss and gradient are those of the whole batch, up to rounding, where
    the model and the loss take each example by itself. What looks across the batch sees one part
    at a time: batch norm, whose running statistics follow every part in turn, a contrastive loss,
    and a penalty on the model state, which is averaged. Each part has noise of its own.

    Args:
      parts: at least 1; static. 1 is the whole batch, to the bit.

    Returns: a Gradient whose sums and results are in at least float32.
    Raises: ValueError for parts below 1, and at trace time for a batch that they do not divide.
    Source: none; for batch norm Hoffer et al. 2017, arXiv:1705.08741 (ghost batches). Compat:
      `optim.accumulate` spreads the parts over steps instead, with batches of the size of a part.

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.train import make_init, make_step
    >>> from fnn.types import Recipe
    >>> recipe = lambda hyper: Recipe(models.dense(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']), gradient=microbatches(4))
    >>> key, hyper, x = jax.random.key(0), {'lr': 0.1}, jnp.linspace(-1, 1, 8)[:, None]
    >>> state, step = make_init(recipe)(key, hyper, x), make_step(recipe)
    >>> for _ in range(100):
    ...     state, metrics = step(state, (x, 3 * x), key, hyper)
    >>> state.params['kernel'].round(2).tolist()
    [[3.0]]
    """
    expect_positive("microbatches", parts=parts)
    if parts == 1:
        return whole_batch

    def gradient(loss, params, model_state, batch, key):
        def one(carry, numbered):
            total, model_state = carry
            value, model_state, grads = _of_part(loss, params, model_state, numbered, key)
            return (_add(total, grads), model_state), value

        numbered = (jnp.arange(parts), _split("microbatches", batch, parts))
        start = (tree.zeros_like(params), model_state)
        (total, model_state), values = jax.lax.scan(one, start, numbered)
        return (values.mean(), model_state), jax.tree.map(lambda t: t / parts, total)

    return gradient


def side_by_side(parts: int) -> Gradient:
    """The gradient of `microbatches`, of which the parts may be computed at the same time.

    For the `gradient` of a recipe, on a CPU: the parts do not wait for one another, so each core
    may work on its own, where in one large batch all cores share every operation and wait at its
    end. On two cores a small convolutional network's step takes 0.8 of the time so, and a small
    transformer's 0.93; a recurrent network's and an MLP's take longer, so measure yours. An
    accelerator gains nothing.

    The activations in memory are those of the whole batch, and the program grows with the parts,
    as does the time to compile it. In all else it is `microbatches`: noise, penalty, and the model
    state, which follows the parts in turn.

    Args:
      parts: at least 1; static. Start with the number of cores. 1 is the whole batch, to the bit.

    Returns: a Gradient whose sums and results are in at least float32.
    Raises: ValueError for parts below 1, and at trace time for a batch that they do not divide.

    >>> def loss(params, model_state, batch, key):
    ...     value = (params['w'] * batch[0]).mean()
    ...     return value, (value, model_state)
    >>> batch = (jnp.array([1.0, 2.0, 3.0, 6.0]), None)
    >>> (value, _), grads = side_by_side(2)(loss, {'w': jnp.ones(())}, (), batch, jax.random.key(0))
    >>> value.item(), grads['w'].item()
    (3.0, 3.0)
    """
    expect_positive("side_by_side", parts=parts)
    if parts == 1:
        return whole_batch

    def gradient(loss, params, model_state, batch, key):
        split, total = _split("side_by_side", batch, parts), tree.zeros_like(params)
        values: list[Array] = []
        for i in range(parts):
            numbered = (i, jax.tree.map(lambda a, i=i: a[i], split))
            value, model_state, grads = _of_part(loss, params, model_state, numbered, key)
            total, values = _add(total, grads), [*values, value]
        reported = jnp.stack(values).mean()
        return (reported, model_state), jax.tree.map(lambda t: t / parts, total)

    return gradient


def _of_part(
    loss: BatchLoss, params: Params, model_state: ModelState, numbered: Any, key: PRNGKey
) -> tuple[Array, ModelState, Params]:
    """Loss, model state and gradients of part i, with noise of its own."""
    i, part = numbered
    noise = jax.random.fold_in(key, i)
    (value, model_state), grads = whole_batch(loss, params, model_state, part, noise)
    return value, model_state, grads


def _add(total: Params, grads: Params) -> Params:
    return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, grads)


def _split(where: str, batch: Pair, parts: int) -> Pair:
    """Each array as (parts, examples of a part, ...), in the order of the batch."""
    examples = jax.tree.leaves(batch)[0].shape[0]
    if examples % parts:
        raise ValueError(
            f"{where}: expected a batch that {parts} parts divide, got {examples} examples; "
            f"use batches of {examples // parts * parts or parts}, or another number of parts"
        )
    return jax.tree.map(lambda a: a.reshape(parts, examples // parts, *a.shape[1:]), tuple(batch))
