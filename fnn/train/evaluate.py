"""Evaluation: the loss and the recipe's metrics over a whole set, each example once."""

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array, Float

from fnn import metrics, tree
from fnn.train.devices import shared_sums
from fnn.train.recipe import RecipeFunction, build
from fnn.train.state import optimizer_state
from fnn.train.step import per_example
from fnn.types import Hyper, Metric, Pair, TrainState

Evaluate = Callable[[TrainState, Pair, Hyper], dict[str, Float[Array, ""]]]


def make_evaluate(recipe: RecipeFunction, *, batch_size: int = 1024) -> Evaluate:
    """`evaluate(state, examples, hyper) -> {'loss': ..., metric: ...}`, jitted.

    The model runs with train=False and the optimizer's `weights`, over batches of `batch_size` and
    one smaller rest; sums and counts are added, so every example weighs the same.

    >>> from fnn import losses, models, optim, schedules
    >>> from fnn.types import Recipe
    >>> from fnn.train.state import make_init
    >>> recipe = lambda hyper: Recipe(models.dense(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> x = jnp.zeros((5, 1))
    >>> state = make_init(recipe)(jax.random.key(0), {'lr': 0.1}, x)
    >>> make_evaluate(recipe, batch_size=2)(state, (x, x + 2), {'lr': 0.1})['loss'].item()
    4.0
    """
    return jax.jit(pure_evaluate(recipe, batch_size))


def pure_evaluate(recipe: RecipeFunction, batch_size: int) -> Evaluate:
    """The evaluation of `make_evaluate`, not jitted."""

    def evaluate(state, examples, hyper):
        built = build(recipe, hyper)
        loss = metrics.mean_loss(lambda p, t: per_example(built.loss, p, t))
        named: dict[str, Metric] = {"loss": loss, **built.metrics}
        params = built.optimizer.weights(optimizer_state(built.optimizer, state), state.params)

        def measure(weights, batch):
            (params, model_state), (x, y) = weights, batch
            predictions, _ = built.model.apply(params, model_state, x)
            return {name: metric.measure(predictions, y) for name, metric in named.items()}

        of_batch = partial(shared_sums(built.devices, measure), (params, state.model_state))
        sums = _over_batches(of_batch, tuple(examples), batch_size)
        return {name: metric.value(sums[name]) for name, metric in named.items()}

    return evaluate


def _over_batches(measure, examples, batch_size: int):
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
