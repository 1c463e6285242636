"""Evaluation: the loss and the recipe's metrics over a whole set, each example once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float, PyTree

from fnn import metrics, tree
from fnn.expect import expect_real
from fnn.losses import terms
from fnn.recipe import RecipeFunction, build, expect_recipe
from fnn.train._inputs import checked_losses, expect_batch, expect_state
from fnn.train.devices import shared_sums
from fnn.types import Hyper, ModelState, Pair, Params, TrainState

Evaluate = Callable[[TrainState, Pair, Hyper], dict[str, Float[Array, ""]]]


def make_evaluate(
    recipe: RecipeFunction, *, batch_size: int = 1024, devices: Sequence[jax.Device] = ()
) -> Evaluate:
    """Returns `evaluate(state, examples, hyper) -> {'loss': ..., metric: ...}`, a pure function.

    A combined loss (`losses.combine`) also has the mean of each term under its name.

    The model runs with train=False and the optimizer's `weights`, over batches of `batch_size` and
    a smaller last one. Sums and weights are added over all batches and divided once: every example
    (or token) has the same weight, and a masked one has none.

    >>> from fnn import Recipe, losses, models, nn, optim, schedules
    >>> from fnn.train import make_init
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.zeros((5, 1))
    >>> state = make_init(recipe)(jax.random.key(0), {'lr': 0.1}, x)
    >>> evaluate = jax.jit(make_evaluate(recipe, batch_size=2))
    >>> evaluate(state, (x, x + 2), {'lr': 0.1})['loss'].item()
    4.0
    """
    expect_recipe(recipe)

    def evaluate(state: TrainState, examples: Pair, hyper: Hyper) -> dict[str, Float[Array, ""]]:
        expect_state("evaluate", state)
        expect_batch("evaluate", examples)
        r = build(recipe, hyper)
        expect_real("examples", tuple(examples))
        named = {"loss": metrics.mean(partial(checked_losses, r.loss)), **r.metrics}
        params = r.optimizer.weights(state.opt_state, state.params)

        def measure(weights: tuple[Params, ModelState], batch: Pair) -> dict[str, PyTree]:
            (params, model_state), (x, y) = weights, batch
            outputs, _ = r.model.apply(params, model_state, x)
            return {name: metric.measure(outputs, y) for name, metric in named.items()}

        of_batch = partial(shared_sums(devices, measure), (params, state.model_state))
        sums = _over_batches(of_batch, tuple(examples), batch_size)
        values = {name: metric.value(sums[name]) for name, metric in named.items()}
        return terms.with_means(values, sums["loss"].get("terms", {}))

    return evaluate


def _over_batches(
    measure: Callable[[Pair], PyTree], examples: tuple[Any, Any], batch_size: int
) -> PyTree:
    """The sums of `measure` over full batches, in a scan, and a smaller last one."""
    full, rest = divmod(tree.length(examples), batch_size)
    if full == 0:
        return measure(examples)
    batches = jax.tree.map(
        lambda a: a[: full * batch_size].reshape(full, batch_size, *a.shape[1:]), examples
    )
    total = measure(jax.tree.map(lambda a: a[0], batches))
    if full > 1:
        others = jax.tree.map(lambda a: a[1:], batches)
        total, _ = jax.lax.scan(lambda s, b: (metrics.merge(s, measure(b)), None), total, others)
    if rest:
        tail = jax.tree.map(lambda a: a[full * batch_size :], examples)
        total = metrics.merge(total, measure(tail))
    return total
