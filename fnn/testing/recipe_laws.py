"""Laws of recipes: a step and an evaluation do not depend on how a batch is cut or padded."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fnn import tree
from fnn.recipe import Recipe, RecipeFunction
from fnn.testing._compare import expect_same
from fnn.train import make_evaluate, make_init, make_step, microbatches
from fnn.types import Hyper, Pair, PRNGKey

# Reordered sums of dozens of float32 values, carried through a backward pass.
RTOL = 1e-5

HINT = "return a Weighted from the loss, or add sums and weights and divide once"


def accumulation_equals_whole_batch(
    recipe: RecipeFunction,
    batch: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    parts: int = 2,
    gradient: Callable[[int], Any] = microbatches,
    rtol: float = RTOL,
) -> None:
    """A step in parts has the loss, penalty, metrics and new parameters of the whole batch.

    For recipes without noise and batch statistics, and a batch whose parts have unequal weights.

    Args:
      parts: a divisor of the batch size.
      gradient: from the number of parts to a `Recipe.gradient`.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(
    ...     nn.linear(2), lambda z, y: losses.cross_entropy(z, y, ignore_index=-1),
    ...     optim.sgd(), schedules.constant(hyper['lr']))
    >>> batch = (jnp.eye(4), jnp.array([0, 1, 1, -1]))
    >>> accumulation_equals_whole_batch(recipe, batch, key=jax.random.key(0), hyper={'lr': 0.1})
    """

    def in_parts(hyper: Hyper) -> Recipe:
        return recipe(hyper)._replace(gradient=gradient(parts))

    expect_same(
        "accumulation_equals_whole_batch",
        _step(recipe, batch, key, hyper),
        _step(in_parts, batch, key, hyper),
        names=("the whole batch", f"{parts} parts"),
        rtol=rtol,
        hint=HINT,
    )


def devices_equal_whole_batch(
    recipe: RecipeFunction,
    batch: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    devices: Sequence[jax.Device],
    rtol: float = RTOL,
) -> None:
    """A step and an evaluation on several devices agree with those on one.

    For recipes without noise and batch statistics.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> devices_equal_whole_batch(recipe, (jnp.eye(2), jnp.ones((2, 1))), key=jax.random.key(0),
    ...                           hyper={'lr': 0.1}, devices=jax.devices()[:1])
    """
    expect_same(
        "devices_equal_whole_batch",
        (_step(recipe, batch, key, hyper), _evaluation(recipe, batch, key, hyper, None)),
        (
            _step(recipe, batch, key, hyper, devices),
            _evaluation(recipe, batch, key, hyper, None, devices),
        ),
        names=("one device", f"{len(devices)} devices"),
        rtol=rtol,
        hint=HINT,
    )


def evaluation_does_not_depend_on_the_batch_size(
    recipe: RecipeFunction,
    examples: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    batch_sizes: Sequence[int] = (1, 3),
    rtol: float = RTOL,
) -> None:
    """Loss and metrics do not depend on the batch size, also with a smaller last batch.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(1), losses.mean_squared_error, optim.sgd(),
    ...                               schedules.constant(hyper['lr']))
    >>> evaluation_does_not_depend_on_the_batch_size(
    ...     recipe, (jnp.eye(4), jnp.ones((4, 1))), key=jax.random.key(0), hyper={'lr': 0.1})
    """
    whole = _evaluation(recipe, examples, key, hyper, None)
    for size in batch_sizes:
        expect_same(
            "evaluation_does_not_depend_on_the_batch_size",
            whole,
            _evaluation(recipe, examples, key, hyper, size),
            names=("one batch", f"batches of {size}"),
            rtol=rtol,
            hint=HINT,
        )


def padding_changes_nothing(
    recipe: RecipeFunction,
    batch: Pair,
    padded: Pair,
    *,
    key: PRNGKey,
    hyper: Hyper,
    rtol: float = RTOL,
) -> None:
    """Padding changes neither the loss, nor the metrics, nor the new parameters of a step.

    Args:
      padded: the batch with more examples or longer sequences, which the loss masks.

    >>> from fnn import losses, models, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(
    ...     nn.linear(2), lambda z, y: losses.cross_entropy(z, y, ignore_index=-1),
    ...     optim.sgd(), schedules.constant(hyper['lr']))
    >>> padding_changes_nothing(
    ...     recipe, (jnp.eye(2), jnp.array([0, 1])), (jnp.eye(4)[:, :2], jnp.array([0, 1, -1, -1])),
    ...     key=jax.random.key(0), hyper={'lr': 0.1})
    """
    expect_same(
        "padding_changes_nothing",
        _step(recipe, batch, key, hyper),
        _step(recipe, padded, key, hyper),
        names=("the batch", "the padded batch"),
        rtol=rtol,
        hint=HINT,
    )


def _step(
    recipe: RecipeFunction,
    batch: Pair,
    key: PRNGKey,
    hyper: Hyper,
    devices: Sequence[jax.Device] = (),
) -> Any:
    """The metrics of a step, and its change of the parameters."""
    key, batch = jax.random.clone(key), jax.tree.map(jnp.asarray, tuple(batch))
    start = jax.jit(make_init(recipe))(key, hyper, batch[0])
    after, metrics = jax.jit(make_step(recipe, devices=devices))(start, batch, key, hyper)
    return metrics, jax.tree.map(jnp.subtract, after.params, start.params)


def _evaluation(
    recipe: RecipeFunction,
    examples: Pair,
    key: PRNGKey,
    hyper: Hyper,
    batch_size: int | None,
    devices: Sequence[jax.Device] = (),
) -> Any:
    key, examples = jax.random.clone(key), jax.tree.map(jnp.asarray, tuple(examples))
    size = tree.length(examples) if batch_size is None else batch_size
    state = jax.jit(make_init(recipe))(key, hyper, examples[0])
    evaluate = make_evaluate(recipe, batch_size=size, devices=devices)
    return jax.jit(evaluate)(state, examples, hyper)
