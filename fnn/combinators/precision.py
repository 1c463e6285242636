"""Mixed precision for a whole recipe: a model of 16 bits, trained in 32."""

from collections.abc import Callable

import jax.numpy as jnp

from fnn.combinators.compute import cast
from fnn.optim import dynamic_loss_scale
from fnn.optim.base import expect_unscaled
from fnn.recipe import Recipe
from fnn.types import Optimizer


def mixed_bfloat16(recipe: Recipe) -> Recipe:
    """The recipe, with its model computed in bfloat16 and everything else in float32.

    Parameters, gradients, loss, norms of the metrics and the optimizer's state stay in float32; a
    bfloat16 has the range of a float32, so no loss scale is needed. Activations and what is kept of
    them for the gradient take half the memory. A CPU without instructions for bfloat16 is not
    quicker for it.

    Source: Kalamkar et al. 2019, arXiv:1905.12322. Compat: Keras' policy "mixed_bfloat16".

    >>> from fnn import losses, models, optim, schedules
    >>> recipe = lambda hyper: mixed_bfloat16(Recipe(
    ...     models.dense(1), losses.mean_squared_error, optim.adam(),
    ...     schedules.constant(hyper['lr'])))
    >>> model = recipe({'lr': 0.1}).model
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 1)))
    >>> y, _ = model.apply({'kernel': jnp.array([[1.001]]), 'bias': jnp.zeros(1)}, state,
    ...                    jnp.ones((1, 1)))
    >>> params['kernel'].dtype.name, y.dtype.name, y.item()
    ('float32', 'float32', 1.0)
    """
    return recipe._replace(model=cast(recipe.model, jnp.bfloat16))


def mixed_float16(
    recipe: Recipe, scale: Callable[[Optimizer], Optimizer] = dynamic_loss_scale
) -> Recipe:
    """The recipe, with its model computed in float16 and its loss scaled so that this is enough.

    As `mixed_bfloat16`, but float16 ends at 6e-8 and at 65,504: the loss is multiplied before it is
    differentiated, the gradient divided in float32, and a step whose gradient overflows is left
    out. The scale is a part of the optimizer's state, so a resumed run goes on with it.

    Args:
      scale: puts the loss scale around the optimizer, as in
        `partial(dynamic_loss_scale, start=1024.0)`.

    Raises: ValueError for an optimizer that has a loss scale already.
    Source: Micikevicius et al. 2018, arXiv:1710.03740. Compat: Keras' policy "mixed_float16".

    >>> from fnn import losses, models, optim, schedules
    >>> recipe = mixed_float16(Recipe(models.dense(1), losses.mean_squared_error, optim.adam(),
    ...                               schedules.constant(0.1)))
    >>> recipe.optimizer.init({'w': jnp.zeros(1)}).scale.item()
    65536.0
    """
    expect_unscaled("mixed_float16", recipe.optimizer)
    return recipe._replace(model=cast(recipe.model, jnp.float16), optimizer=scale(recipe.optimizer))
