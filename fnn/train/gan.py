"""Two players in one pure step: a generator, and a discriminator that tells its work from data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn import tree
from fnn.keys import fold_name
from fnn.losses import binary_cross_entropy
from fnn.types import Hyper, Model, ModelState, Optimizer, Params, PRNGKey, Schedule


class Player(NamedTuple):
    """A model with what trains it."""

    model: Model
    optimizer: Optimizer
    schedule: Schedule


class GANRecipe(NamedTuple):
    """All that the training of two players needs to know, made by a function of `hyper`."""

    generator: Player  # from latents to examples
    discriminator: Player  # from examples (B, ...) to logits (B,) or (B, 1): above 0 for data
    prior: Callable[[PRNGKey, int], Any]  # (key, B) -> latents, with the batch axis first


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PlayerState:
    """What a player carries from step to step."""

    params: Params
    model_state: ModelState
    opt_state: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GANState:
    """All that the training carries from step to step."""

    step: Int[Array, ""]  # updates of each player made so far, int32
    generator: PlayerState
    discriminator: PlayerState


GANStep = Callable[[GANState, Any, PRNGKey, Hyper], tuple[GANState, dict[str, Float[Array, ""]]]]


def make_gan_init(
    recipe: Callable[[Hyper], GANRecipe],
) -> Callable[[PRNGKey, Hyper, Any], GANState]:
    """`init(key, hyper, x) -> state` for real examples like x (B, ...), jitted as one program.

    >>> from fnn import models, optim, schedules
    >>> player = Player(models.dense(1), optim.sgd(), schedules.constant(0.1))
    >>> recipe = lambda hyper: GANRecipe(
    ...     player, player, prior=lambda key, n: jax.random.normal(key, (n, 2)))
    >>> state = make_gan_init(recipe)(jax.random.key(0), {}, jnp.ones((4, 1)))
    >>> state.generator.params['kernel'].shape, state.discriminator.params['kernel'].shape
    ((2, 1), (1, 1))
    """

    def init(key, hyper, x):
        built = recipe(hyper)
        latents = jax.eval_shape(lambda key: built.prior(key, x.shape[0]), key)
        return GANState(
            step=jnp.int32(0),
            generator=_start(built.generator, fold_name(key, "generator"), latents),
            discriminator=_start(built.discriminator, fold_name(key, "discriminator"), x),
        )

    return jax.jit(init)


def make_gan_step(recipe: Callable[[Hyper], GANRecipe]) -> GANStep:
    """`step(state, x, key, hyper) -> state, metrics`, jitted, with the state donated.

        discriminator:  mean softplus(-D(x)) + softplus(D(G(z)))
        generator:      mean softplus(-D(G(z)))             with the new D, and a new z

    Args of the step:
      state: given up to the step; keep the state that it returns.
      x: real examples, (B, ...).
      key: the run's noise stream; the step uses `fold_in(key, state.step)`, so pass the same key
        to every step.
      hyper: what the recipe is built from.

    The metrics are {'generator_loss', 'discriminator_loss'}: at balance log 2 and 2 log 2.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, Algorithm 1 with k = 1, and section 3 for the
      generator's loss, which does not fade where the discriminator is sure.

    >>> from fnn import models, optim, schedules
    >>> def recipe(hyper):
    ...     lr = schedules.constant(hyper['lr'])
    ...     return GANRecipe(generator=Player(models.dense(1), optim.adam(b1=0.5), lr),
    ...                      discriminator=Player(models.dense(1), optim.adam(b1=0.5), lr),
    ...                      prior=lambda key, n: jax.random.normal(key, (n, 1)))
    >>> key, hyper = jax.random.key(0), {'lr': 0.01}
    >>> x = 2 + jax.random.normal(jax.random.key(1), (64, 1))
    >>> state, step = make_gan_init(recipe)(key, hyper, x), make_gan_step(recipe)
    >>> state, metrics = step(state, x, key, hyper)
    >>> sorted(metrics), state.step.item()
    (['discriminator_loss', 'generator_loss'], 1)
    """
    return jax.jit(pure_gan_step(recipe), donate_argnums=0)


def pure_gan_step(recipe: Callable[[Hyper], GANRecipe]) -> GANStep:
    """The step of `make_gan_step`, not jitted: for use inside scans and other programs."""

    def step(state, x, key, hyper):
        generator, discriminator, prior = recipe(hyper)
        noise = jax.random.fold_in(key, state.step)

        def make(params, name):
            own = fold_name(noise, name)
            z = prior(fold_name(own, "prior"), x.shape[0])
            return generator.model.apply(
                params, state.generator.model_state, z, key=fold_name(own, "model"), train=True
            )

        def judge(params, model_state, x, name):
            own = fold_name(noise, name)
            return discriminator.model.apply(params, model_state, x, key=own, train=True)

        def discriminator_loss(params):
            made, _ = make(state.generator.params, "to judge")
            of_data, model_state = judge(params, state.discriminator.model_state, x, "data")
            of_made, model_state = judge(params, model_state, made, "made")
            return _cost(of_data, says_data=True) + _cost(of_made, says_data=False), model_state

        loss_d, new_d = _update(discriminator, state.discriminator, state.step, discriminator_loss)

        def generator_loss(params):
            made, model_state = make(params, "to learn")
            said, _ = judge(new_d.params, new_d.model_state, made, "answer")
            return _cost(said, says_data=True), model_state

        loss_g, new_g = _update(generator, state.generator, state.step, generator_loss)
        state = GANState(step=state.step + 1, generator=new_g, discriminator=new_d)
        return state, {"generator_loss": loss_g, "discriminator_loss": loss_d}

    return step


def _start(player: Player, key: PRNGKey, x: Any) -> PlayerState:
    params, model_state = player.model.init(key, x)
    return PlayerState(
        params=params, model_state=model_state, opt_state=player.optimizer.init(params)
    )


def _update(
    player: Player,
    state: PlayerState,
    step: Int[Array, ""],
    loss: Callable[[Params], tuple[Float[Array, ""], ModelState]],
) -> tuple[Float[Array, ""], PlayerState]:
    """The loss, and the player after one update."""
    (value, model_state), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    lr = player.schedule(step)
    updates, opt_state = player.optimizer.update(grads, state.opt_state, state.params, lr)
    params = tree.add(state.params, updates)
    return value, PlayerState(params=params, model_state=model_state, opt_state=opt_state)


def _cost(logits: Array, *, says_data: bool) -> Float[Array, ""]:
    targets = jnp.full(logits.shape, float(says_data), logits.dtype)
    return binary_cross_entropy(logits, targets).mean()
