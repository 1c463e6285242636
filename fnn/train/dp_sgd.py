"""Differentially private SGD: clipped gradients of single examples, with noise on their sum."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import dtypes, tree
from fnn.expect import within
from fnn.keys import fold_name
from fnn.recipe import whole_batch
from fnn.train.gradient import ScaledLoss, in_parts
from fnn.types import BatchLoss, Gradient, LossSums, ModelState, Pair, Params, PRNGKey, Scalar


@within(clip_norm="(0, inf)", noise_multiplier="[0, inf)")
def private_gradient(clip_norm: Scalar, noise_multiplier: Scalar, *, parts: int = 1) -> Gradient:
    """DP-SGD: gradients of single examples, clipped and summed, with normal noise on the sum.

        g_i = the gradient of sum(w v) of example i, penalty included
        g = sum_i g_i min(1, clip_norm / ||g_i||) + noise_multiplier clip_norm N(0, 1)

    For `Recipe.gradient`; the step divides g by the sum of the weights w, which is the number of
    examples where the loss has one value of weight 1 for each. The norm is that of all leaves.

    Args:
      clip_norm: bound on the norm of g_i, above 0; with a loss per token g_i is that of the sum
        over an example's tokens.
      noise_multiplier: standard deviation of the noise over clip_norm, at least 0. The privacy of a
        run follows from it, the fraction of the examples in a batch and the number of steps: use an
        accountant, such as dp-accounting.
      parts: number of slices of the batch that are computed one by one, a divisor of its size;
        static. Memory is that of the parameters times the examples of a slice.

    Each example has its own noise in the model (dropout). The model state may depend on the
    parameters and on itself, not on the examples: batch norm is refused, group norm and layer norm
    are not. Not private are the losses and metrics that a step reports, the sum of the weights
    where masks make it depend on the data, and the objective that some optimizers evaluate (`sam`,
    `lbfgs`, `momo`, ...). Each of several devices adds noise, which multiplies the variance by
    their number.

    Returns: a Gradient; sums and gradients are in at least float32.
    Raises: ValueError for parts below 1; at trace time for a batch that they do not divide, for a
      model state that depends on the examples, for a loss that is not that of a step, and for a
      combined one (`losses.combine`).
    Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1. Deviates: batches are those of the
      run's order, without replacement in an epoch; most accountants assume Poisson sampling.
      Compat: `optax.contrib.differentially_private_aggregate` of gradients by `vmap`.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> from fnn.train import make_init, make_step
    >>> recipe = lambda hyper: Recipe(
    ...     nn.linear(1), losses.mean_squared_error, optim.sgd(), schedules.constant(1.0),
    ...     gradient=private_gradient(hyper['clip'], noise_multiplier=0.0))
    >>> key, hyper, x = jax.random.key(0), {'clip': 0.5}, jnp.array([[0.0], [0.0]])
    >>> state = make_init(recipe)(key, hyper, x)
    >>> y = jnp.array([[1000.0], [-0.1]])   # gradients by the bias: -2000 and 0.2
    >>> state, _ = jax.jit(make_step(recipe))(state, (x, y), key, hyper)
    >>> round(state.params['bias'].item(), 3)   # (0.5 - 0.2) / 2
    0.15
    """
    clipped = in_parts("private_gradient", _sum_of_clipped(clip_norm), parts)

    def gradient(
        loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]:
        _expect_one_term(loss)
        sums, grads = clipped(loss, params, model_state, batch, key)
        noise_key = fold_name(key, "private_gradient")

        def noisy(path: str, g: Array) -> Array:
            std = _scaled(loss, clip_norm, g.dtype) * jnp.asarray(noise_multiplier, g.dtype)
            return g + std * jax.random.normal(fold_name(noise_key, path), g.shape, g.dtype)

        return sums, tree.map_with_path(noisy, grads)

    return gradient


def _sum_of_clipped(clip_norm: Scalar) -> Gradient:
    def gradient(
        loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]:
        def of_example(example: Any, i: Array) -> tuple[LossSums, Params]:
            one = jax.tree.map(lambda leaf: leaf[None], example)
            noise = jax.random.fold_in(key, i)
            sums, grads = whole_batch(loss, params, model_state, one, noise)
            scale, norm = tree.scaled_norm(grads)
            limit = _scaled(loss, clip_norm, norm.dtype) / scale
            factor = limit / jnp.maximum(norm, limit)
            return sums, tree.scale(factor, dtypes.wide(grads))

        indices = jnp.arange(tree.length(batch))
        sums, grads = _over_examples(of_example)(tuple(batch), indices)
        model_state, sums = sums.model_state, sums._replace(model_state=())
        sums, grads = jax.tree.map(lambda leaf: leaf.sum(axis=0), (sums, grads))
        return sums._replace(model_state=model_state), grads

    return gradient


# The sums of an example; the model state has no axis of examples.
_AXES = LossSums(loss=0, penalty=0, weight=0, metrics=0, model_state=None)  # type: ignore[arg-type]


def _over_examples(function: Callable[..., Any]) -> Callable[..., Any]:
    def mapped(*arguments: Any) -> Any:
        try:
            return jax.vmap(function, out_axes=(_AXES, 0))(*arguments)
        except ValueError as error:
            if "got axis spec None" not in str(error):
                raise
            raise ValueError(
                "private_gradient: expected a model state that does not depend on the examples, "
                f"got one that does ({error}); use group_norm or layer_norm for batch_norm"
            ) from error

    return mapped


def _expect_one_term(loss: BatchLoss) -> None:
    """Refuses terms, whose weights are those of the batch: one example changes all gradients."""
    if isinstance(loss, ScaledLoss) and loss.means is not None:
        raise ValueError(
            f"private_gradient: expected one loss for each example, got the terms "
            f"{sorted(loss.means)}, which are divided by weights of the batch; add them up in the "
            "loss, as arrays without masks"
        )


def _scaled(loss: BatchLoss, number: Scalar, dtype: Any) -> Array:
    """A number in the unit of the sum of the losses, rescaled to that of the scaled loss."""
    if not isinstance(loss, ScaledLoss):
        raise ValueError(
            f"private_gradient: expected the loss of a step, whose scale it needs, got "
            f"{type(loss).__name__}; give it to Recipe.gradient as it is"
        )
    return jnp.asarray(number, dtype) * jnp.asarray(loss.scale, dtype)
