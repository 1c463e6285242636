"""The gradient of a batch: sums and weights are added over all its parts and divided once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fnn import dtypes, tree
from fnn.expect import expect_divided, expect_real
from fnn.keys import fold_name
from fnn.losses import terms
from fnn.recipe import Recipe, no_penalty, whole_batch
from fnn.train._inputs import as_weighted, checked_losses
from fnn.train.devices import shared_gradient
from fnn.types import (
    BatchLoss,
    Gradient,
    LossSums,
    ModelState,
    Objective,
    Pair,
    Params,
    PRNGKey,
    Scalar,
    Terms,
    TrainState,
)
from fnn.weighted import per_weight


def mean_gradient(
    r: Recipe, state: TrainState, batch: Pair, key: PRNGKey, devices: Sequence[jax.Device] = ()
) -> tuple[LossSums, Params, Objective]:
    """Forward and backward pass: the sums of a batch, the mean gradient, and the objective."""
    gradient = shared_gradient(devices, r.gradient)
    cut = len(devices) > 1 or r.gradient is not whole_batch
    examples, loss_scale = tree.length(batch), r.optimizer.loss_scale(state.opt_state)
    # Differentiates the sum over the number of examples: the sum itself may overflow in float16.
    loss = ScaledLoss(
        r, loss_scale / examples, _mean_weights(r, state, batch, key) if cut else None
    )

    def sums_and_grads(params: Params) -> tuple[LossSums, Params]:
        sums, grads = gradient(loss, params, state.model_state, batch, key)
        # The only division by a number of examples or tokens.
        factor = per_weight(examples, sums.weight) / loss_scale
        return sums, jax.tree.map(lambda g: g * factor.astype(g.dtype), dtypes.wide(grads))

    def loss_and_grads(params: Params) -> tuple[Float[Array, ""], Params]:
        sums, grads = sums_and_grads(params)
        return _total(sums), grads

    sums, grads = sums_and_grads(state.params)
    return sums, grads, Objective(_total(sums), loss_and_grads)


def _total(sums: LossSums) -> Float[Array, ""]:
    return per_weight(sums.loss + sums.penalty, sums.weight)


def means(r: Recipe, sums: LossSums) -> dict[str, Float[Array, ""]]:
    """The metrics of a batch: 'loss', 'penalty' if there is one, and the train metrics."""
    loss, penalty = (per_weight(total, sums.weight) for total in (sums.loss, sums.penalty))
    penalties = {} if r.penalty is no_penalty else {"penalty": penalty}
    values = {name: metric.value(sums.metrics[name]) for name, metric in r.train_metrics.items()}
    return terms.with_means({"loss": loss, **penalties, **values}, sums.terms)


def _mean_weights(
    r: Recipe, state: TrainState, batch: Pair, key: PRNGKey
) -> dict[str, Array] | None:
    """Mean weight of an example in each term of a combined loss; None for other losses.

    Each part of a batch divides its terms by those of the whole. They do not depend on the
    parameters, so the compiler drops the forward pass.
    """

    def losses(x: Any, y: Any) -> Any:
        noise = fold_name(key, "weights")
        outputs, _ = r.model.apply(state.params, state.model_state, x, key=noise, train=True)
        return checked_losses(r.loss, outputs, y)

    if not isinstance(jax.eval_shape(losses, *batch), Terms):
        return None
    return terms.mean_weights(losses(*batch))


@dataclass(frozen=True, eq=False)
class ScaledLoss:
    """`scale` times the sum of the weighted losses and penalties of a batch, and its sums."""

    recipe: Recipe
    scale: Scalar
    means: dict[str, Array] | None = None  # mean weights of the terms, for parts of a batch

    def __call__(
        self, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[Float[Array, ""], LossSums]:
        """The scalar to differentiate, and the sums."""
        r, (x, y) = self.recipe, batch
        expect_real("batch", (x, y))
        expect_real("params", params)
        params = _stop_gradient_unless(r.optimizer.trained(params), params)
        outputs, model_state = r.model.apply(params, model_state, x, key=key, train=True)
        found = checked_losses(r.loss, outputs, y)
        losses = as_weighted(found, self.means)
        weight = losses.weights.sum()
        sums = LossSums(
            loss=losses.sum(),
            penalty=weight * jnp.asarray(r.penalty(params, model_state), weight.dtype),
            weight=weight,
            metrics={name: m.measure(outputs, y) for name, m in r.train_metrics.items()},
            model_state=model_state,
            terms=terms.sums_of(found) if isinstance(found, Terms) else {},
        )
        total = sums.loss + sums.penalty
        return total * jnp.asarray(self.scale, total.dtype), sums


def _stop_gradient_unless(trained: PyTree, params: Params) -> Params:
    """No gradient, and no work for it, for leaves that are not trained."""
    return jax.tree.map(lambda is_, p: p if is_ else jax.lax.stop_gradient(p), trained, params)


def microbatches(parts: int) -> Gradient:
    """Gradient accumulation within a step: the batch is processed in `parts` slices, one by one.

        loss = sum_i sum(w v of part i) / sum_i sum(w of part i),   and the gradient of that

    For `Recipe.gradient`. Activations in memory are those of one part; optimizer and schedule see
    one step. Loss and gradient are those of the whole batch, up to rounding, for any masks and
    weights. Computations across the batch see one part at a time: batch norm, whose running
    statistics are updated by every part in turn, contrastive losses, and a penalty on the model
    state, which is averaged by weight. Each part has its own noise.

    Args:
      parts: at least 1, a divisor of the batch size; static. 1 is the whole batch.

    Returns: a Gradient; sums are in at least float32.
    Raises: ValueError for parts below 1, and at trace time for a batch that they do not divide.
    Source: none; for batch norm Hoffer et al. 2017, arXiv:1705.08741 (ghost batches). Compat:
      `optim.accumulate` accumulates over steps instead, with batches of the size of a part.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> from fnn.train import make_init, make_step
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']), gradient=microbatches(4))
    >>> key, hyper, x = jax.random.key(0), {'lr': 0.1}, jnp.linspace(-1, 1, 8)[:, None]
    >>> state, step = make_init(recipe)(key, hyper, x), jax.jit(make_step(recipe))
    >>> for _ in range(100):
    ...     state, metrics = step(state, (x, 3 * x), key, hyper)
    >>> state.params['kernel'].round(2).tolist()
    [[3.0]]
    """
    return in_parts("microbatches", whole_batch, parts)


def in_parts(where: str, gradient: Gradient, parts: int) -> Gradient:
    """The sums and gradients of `gradient`, added over equal parts of a batch, one by one."""
    if parts == 1:
        return gradient

    def of_batch(
        loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]:
        def add(
            carry: tuple[LossSums, Params], numbered: tuple[Array, Pair]
        ) -> tuple[tuple[LossSums, Params], None]:
            (sums, grads), (i, part) = carry, numbered
            noise = jax.random.fold_in(key, i)
            more, more_grads = gradient(loss, params, sums.model_state, part, noise)
            total = jax.tree.map(
                jnp.add, sums._replace(model_state=()), more._replace(model_state=())
            )
            grads = jax.tree.map(jnp.add, grads, dtypes.wide(more_grads))
            return (total._replace(model_state=more.model_state), grads), None

        size = expect_divided(where, batch, parts) // parts
        slices = jax.tree.map(lambda a: a.reshape(parts, size, *a.shape[1:]), tuple(batch))
        first = jax.tree.map(lambda a: a[0], slices)
        _, shapes = jax.eval_shape(loss, params, model_state, first, key)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        start = (zeros._replace(model_state=model_state), tree.zeros_like(params))
        (sums, grads), _ = jax.lax.scan(add, start, (jnp.arange(parts), slices))
        return sums, grads

    return of_batch
