"""One training step, the whole of it: loss, gradient, update, metrics."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn import tree
from fnn.keys import fold_name
from fnn.train.devices import shared_gradient
from fnn.train.pack import pack
from fnn.train.recipe import RecipeFunction, build, expect_all_read, watch
from fnn.train.state import optimizer_state
from fnn.types import (
    Gradient,
    Hyper,
    Loss,
    Metrics,
    Objective,
    Optimizer,
    Pair,
    Params,
    PRNGKey,
    TrainState,
    unscaled,
)

Step = Callable[[TrainState, Pair, PRNGKey, Hyper], tuple[TrainState, Metrics]]


def make_step(recipe: RecipeFunction) -> Step:
    """`step(state, batch, key, hyper) -> state, metrics`, jitted, with the state donated.

    Traced once for any number of steps and any values of `hyper` (as long as its leaves keep their
    types: all Python floats, or all arrays).

    Args of the step:
      state: given up to the step; keep the state that it returns.
      batch: (x, y), each with the batch axis first.
      key: the run's noise stream; the step uses `fold_in(key, state.step)`, so pass the same key
        to every step.
      hyper: what the recipe is built from.

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.types import Recipe
    >>> from fnn.train.state import make_init
    >>> recipe = lambda hyper: Recipe(models.dense(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> key, hyper = jax.random.key(0), {'lr': 0.1}
    >>> x = jnp.array([[1.0], [2.0]])
    >>> state = make_init(recipe)(key, hyper, x)
    >>> step = make_step(recipe)
    >>> for _ in range(300):
    ...     state, metrics = step(state, (x, 3 * x), key, hyper)   # learn y = 3 x
    >>> state.step.item(), metrics.loss.item() < 1e-3
    (300, True)
    """
    return jax.jit(pure_step(recipe), donate_argnums=0)


def pure_step(recipe: RecipeFunction) -> Step:
    """The step of `make_step`, not jitted: for use inside scans, vmaps and other programs."""

    def step(state, batch, key, hyper):
        hyper = watch(hyper)
        built = build(recipe, hyper)
        optimizer, schedule, measured = built.optimizer, built.schedule, built.norms
        noise = jax.random.fold_in(key, state.step)
        batch = built.augment(fold_name(noise, "augment"), batch)
        opt_state = optimizer_state(optimizer, state)

        def mean_loss(params, model_state, batch, key):
            x, y = batch
            outputs, model_state = built.model.apply(params, model_state, x, key=key, train=True)
            mean = per_example(built.loss, outputs, y).mean()
            total = mean + built.penalty(params, model_state)
            return total, (total, model_state)

        def loss_and_grads(params):
            gradient = shared_gradient(built.devices, built.gradient)
            scaled = _at_loss_scale(gradient, optimizer, opt_state)
            return scaled(mean_loss, params, state.model_state, batch, noise)

        (value, model_state), grads = loss_and_grads(state.params)
        objective = Objective(value, partial(_without_state, loss_and_grads))
        lr = schedule(state.step)
        with tree.small_leaves_joined():
            updates, opt_state = optimizer.update(grads, opt_state, state.params, lr, objective)
            if measured:
                squares = tree.squared_norms(grads, of_products=True)
                updates = _computed_once(updates, squares[0])
        expect_all_read(hyper)
        params = tree.add(state.params, updates)
        norms = jnp.full(3, jnp.nan)
        if measured:
            # Of the new parameters: read once more, the old could not be overwritten in place.
            squares = jnp.concatenate([squares, tree.squared_norms(updates, params)])
            norms = tree.safe_sqrt(squares)
        state = TrainState(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=pack(opt_state, params),
        )
        return state, _metrics(value, lr, norms)

    return step


def _at_loss_scale(gradient: Gradient, optimizer: Optimizer, opt_state: Any) -> Gradient:
    """`gradient` of the loss times the optimizer's loss scale, divided by it again."""
    if optimizer.loss_scale is unscaled:
        return gradient
    scale = jnp.asarray(optimizer.loss_scale(opt_state))

    def unscale(g: Array) -> Array:
        wide = tree.at_least_float32(g)  # float16 would round what is below 6e-8 to 0
        return g.astype(wide) / scale.astype(wide)

    def scaled(loss, params, model_state, batch, key):
        def scaled_loss(*args):
            value, reported = loss(*args)
            return value * scale.astype(value.dtype), reported

        reported, grads = gradient(scaled_loss, params, model_state, batch, key)
        return reported, jax.tree.map(unscale, grads)

    return scaled


def _without_state(loss_and_grads: Callable, params: Params) -> tuple[Array, Params]:
    (value, _), grads = loss_and_grads(params)
    return value, grads


def _computed_once(updates: Any, earlier: Array) -> Any:
    """The same updates, to the last bit, behind a division that XLA cannot remove.

    They have two readers, the new parameters and the norm. On a CPU, XLA computes what is cheap
    once for each reader, and writes out every costly part of it for both; a division it does once.
    It is by a 1 that waits for `earlier`, to which all gradients lead: parameters that were
    overwritten while the backward pass still reads them would have to be copied first. That it is a
    1 is seen by LLVM, which comes after XLA and leaves the division out.
    """
    one = jax.lax.clamp(jnp.int32(1), (earlier > 0).astype(jnp.int32), jnp.int32(1))
    return tree.elementwise(lambda u: u / one.astype(u.dtype), updates)


def per_example(loss: Loss, predictions: Any, targets: Any) -> Float[Array, "batch ..."]:
    """The losses, checked to be one array of floats with the batch axis first."""
    losses = loss(predictions, targets)
    batch = tree.length(targets)
    if not isinstance(losses, jax.Array):
        raise ValueError(
            f"loss: expected one array of per-example losses, got {type(losses).__name__}; "
            "return a single array of shape (batch,)"
        )
    if (
        losses.ndim < 1
        or losses.shape[0] != batch
        or not jnp.issubdtype(losses.dtype, jnp.floating)
    ):
        raise ValueError(
            f"loss: expected floats of shape ({batch}, ...), one loss per example, got "
            f"{tree.spec(losses)}; leave the mean over the batch to the step"
        )
    return losses.astype(tree.at_least_float32(losses))


def _metrics(loss: Array, lr: Array, norms: Array) -> Metrics:
    loss_and_lr = jnp.stack([loss.astype(jnp.float32), lr.astype(jnp.float32)])
    return Metrics(values=jnp.concatenate([loss_and_lr, norms.astype(jnp.float32)]))
