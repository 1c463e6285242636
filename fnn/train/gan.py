"""Generative adversarial networks: two players, each trained by the step of an ordinary recipe."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn._messages import refuse
from fnn._recipe_check import check_player, expect_hyper, expect_measures
from fnn.keys import fold_name
from fnn.losses import binary_cross_entropy
from fnn.measures import Named, flat
from fnn.recipe import Recipe
from fnn.train._inputs import expect_arrays, expect_key, expect_state, weighted_losses
from fnn.train.state import fresh_state
from fnn.train.step import update
from fnn.types import (
    Apply,
    Hyper,
    Loss,
    Measure,
    Model,
    ModelState,
    Optimizer,
    Params,
    PRNGKey,
    Schedule,
    StatefulMeasure,
    TrainState,
    Weighted,
)


class Player(NamedTuple):
    """A model with its optimizer and schedule."""

    model: Model
    optimizer: Optimizer
    schedule: Schedule


class GANRecipe(NamedTuple):
    """Two players, their prior and loss; returned by a function of `hyper`.

    `loss(logits, targets)` has targets of 1 for data and 0 for generated examples. Each of the
    `measures` is called at the step of each player.
    """

    generator: Player  # from latents to examples
    discriminator: Player  # from examples (B, ...) to logits (B,) or (B, 1): above 0 for data
    prior: Callable[[PRNGKey, int], Any]  # (key, B) -> latents, with the batch axis first
    loss: Loss = binary_cross_entropy
    measures: Sequence[Measure | StatefulMeasure] = ()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GANState:
    """The states of both players."""

    generator: TrainState
    discriminator: TrainState

    @property
    def step(self) -> Int[Array, ""]:
        """Updates of each player so far, int32."""
        return self.generator.step


GANStep = Callable[[GANState, Any, PRNGKey, Hyper], tuple[GANState, Named]]


def make_gan_init(
    recipe: Callable[[Hyper], GANRecipe],
) -> Callable[[PRNGKey, Hyper, Any], GANState]:
    """Returns `init(key, hyper, x) -> state` for data like x (B, ...), a pure function.

    >>> from fnn import models, nn, optim, schedules
    >>> player = Player(nn.linear(1), optim.sgd(), schedules.constant(0.1))
    >>> recipe = lambda hyper: GANRecipe(
    ...     player, player, prior=lambda key, n: jax.random.normal(key, (n, 2)))
    >>> state = make_gan_init(recipe)(jax.random.key(0), {}, jnp.ones((4, 1)))
    >>> state.generator.params['kernel'].shape, state.discriminator.params['kernel'].shape
    ((2, 1), (1, 1))
    """

    def init(key: PRNGKey, hyper: Hyper, x: Any) -> GANState:
        expect_key("key", key)
        expect_arrays("init: x", x)
        r = _build(recipe, hyper)
        latents = jax.eval_shape(lambda key: r.prior(key, tree.length(x)), key)

        def first(player: Player, key: PRNGKey, x: Any) -> TrainState:
            return fresh_state(*player.model.init(key, x), player.optimizer, r.measures)

        return GANState(
            generator=first(r.generator, fold_name(key, "generator"), latents),
            discriminator=first(r.discriminator, fold_name(key, "discriminator"), x),
        )

    return init


def make_gan_step(recipe: Callable[[Hyper], GANRecipe]) -> GANStep:
    """Returns `step(state, x, key, hyper) -> state, metrics`, a pure function; see `make_step`.

        discriminator:  mean of loss(D(x), 1) + loss(D(G(z)), 0)
        generator:      mean of loss(D(G(z)), 1)             with the new D, and a new z

    Args of the step:
      state: from `make_gan_init`, or the previous step.
      x: data, (B, ...), or `Weighted(x, weights)` with weights (B,) for the discriminator's mean.
      key: base key of the noise; the step uses `fold_in(key, state.step)`, so pass the same key to
        every step.
      hyper: argument of the recipe.

    Returns: the new state and the metrics of both players by name: 'generator_loss', at equilibrium
      log 2; 'discriminator_loss', at equilibrium 2 log 2; 'generator_lr', 'discriminator_lr', and
      the entries of the measures.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, Algorithm 1 with k = 1, and section 3 for the
      non-saturating loss of the generator.

    >>> from fnn import models, nn, optim, schedules
    >>> def recipe(hyper):
    ...     lr = schedules.constant(hyper['lr'])
    ...     return GANRecipe(generator=Player(nn.linear(1), optim.adam(b1=0.5), lr),
    ...                      discriminator=Player(nn.linear(1), optim.adam(b1=0.5), lr),
    ...                      prior=lambda key, n: jax.random.normal(key, (n, 1)))
    >>> key, hyper = jax.random.key(0), {'lr': 0.01}
    >>> x = 2 + jax.random.normal(jax.random.key(1), (64, 1))
    >>> state = jax.jit(make_gan_init(recipe))(key, hyper, x)
    >>> state, metrics = jax.jit(make_gan_step(recipe))(state, x, key, hyper)
    >>> sorted(metrics), state.step.item()
    (['discriminator_loss', 'discriminator_lr', 'generator_loss', 'generator_lr'], 1)
    """

    def step(state: GANState, x: Any, key: PRNGKey, hyper: Hyper) -> tuple[GANState, Named]:
        expect_state("step", state, GANState)
        expect_key("key", key)
        r = _build(recipe, hyper)
        noise = jax.random.fold_in(key, state.step)
        x, weights = x if isinstance(x, Weighted) else (x, jnp.ones(tree.length(x), jnp.float32))

        def latents(name: str) -> Any:
            return r.prior(fold_name(noise, name), tree.length(x))

        generated, _ = r.generator.model.apply(
            state.generator.params,
            state.generator.model_state,
            latents("of the judged"),
            key=fold_name(noise, "made"),
            train=True,
        )
        discriminate = _as_recipe(r, r.discriminator, _both_logits(r), _loss(r.loss, 1.0, 0.0))
        batch = (x, generated), weights
        discriminator, of_discriminator = update(
            discriminate, state.discriminator, batch, fold_name(noise, "discriminator")
        )
        generate = _as_recipe(r, r.generator, _logits(r, discriminator), _loss(r.loss, 1.0))
        batch = latents("of the learner"), jnp.ones_like(weights)
        generator, of_generator = update(
            generate, state.generator, batch, fold_name(noise, "generator")
        )
        metrics = {f"discriminator_{name}": v for name, v in flat(of_discriminator).items()}
        metrics |= {f"generator_{name}": v for name, v in flat(of_generator).items()}
        return GANState(generator=generator, discriminator=discriminator), metrics

    return step


def _build(recipe: Callable[[Hyper], GANRecipe], hyper: Hyper) -> GANRecipe:
    """The recipe for `hyper`, checked."""
    expect_hyper(hyper)
    r = recipe(hyper)
    if not isinstance(r, GANRecipe):
        hint = "return GANRecipe(generator=, discriminator=, prior=)"
        refuse("recipe", "a GANRecipe from recipe(hyper)", r, hint)
    for name in ("generator", "discriminator"):
        player = getattr(r, name)
        if not isinstance(player, Player):
            hint = "use Player(model, optimizer, schedule)"
            refuse(f"GANRecipe.{name}", "a Player", player, hint)
        check_player(f"GANRecipe.{name}", *player)
    expect_measures("GANRecipe.measures", r.measures)
    return r


def _as_recipe(r: GANRecipe, player: Player, apply: Apply, loss: Loss) -> Recipe:
    model = Model(player.model.init, apply)
    return Recipe(model, loss, player.optimizer, player.schedule, measures=r.measures)


def _both_logits(r: GANRecipe) -> Apply:
    """The discriminator's logits of data and of generated examples."""

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[list[Array], ModelState]:
        logits = []
        for name, examples in zip(("data", "made"), x, strict=True):
            z, model_state = r.discriminator.model.apply(
                params, model_state, examples, key=fold_name(key, name), train=train
            )
            logits.append(z)
        return logits, model_state

    return apply


def _logits(r: GANRecipe, judge: TrainState) -> Apply:
    """The discriminator's logits of the examples that the generator makes of latents."""

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[list[Array], ModelState]:
        generated, model_state = r.generator.model.apply(
            params, model_state, x, key=fold_name(key, "made"), train=train
        )
        z, _ = r.discriminator.model.apply(
            judge.params, judge.model_state, generated, key=fold_name(key, "judged"), train=train
        )
        return [z], model_state

    return apply


def _loss(loss: Loss, *targets: float) -> Loss:
    """Sum of the losses of each logits for its target; the batch's targets are example weights."""

    def summed(logits: Sequence[Array], weights: Array) -> Weighted:
        parts = [
            weighted_losses(loss, z, jnp.full_like(z, target))
            for z, target in zip(logits, targets, strict=True)
        ]
        values = functools.reduce(jnp.add, [part.values for part in parts])
        of_logits = functools.reduce(jnp.multiply, [part.weights for part in parts])
        return Weighted(values, of_logits * weights.reshape(-1, *[1] * (values.ndim - 1)))

    return summed
