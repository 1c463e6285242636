"""Generative adversarial networks: two players, each updated by the step of an ordinary recipe."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fnn import tree
from fnn.advice import refuse
from fnn.keys import fold_name
from fnn.losses import binary_cross_entropy
from fnn.measures import Named, flat, init_states
from fnn.recipe import Recipe
from fnn.recipe_check import check_player, expect_hyper, expect_measures
from fnn.train._given import expect_arrays, expect_key, expect_state
from fnn.train._weighted import weighted_losses
from fnn.train.step import update
from fnn.types import (
    Apply,
    Hyper,
    Loss,
    Measure,
    Model,
    Optimizer,
    PRNGKey,
    Schedule,
    StatefulMeasure,
    TrainState,
    Weighted,
)


class Player(NamedTuple):
    """A model with what trains it."""

    model: Model
    optimizer: Optimizer
    schedule: Schedule


class GANRecipe(NamedTuple):
    """What the training of two players needs to know, made by a function of `hyper`.

    `loss(logits, targets)` has targets of 1 for data and 0 for what the generator made. Each of the
    `measures` sees the step of each player.
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
        """Updates of each player made so far, int32."""
        return self.generator.step


GANStep = Callable[[GANState, Any, PRNGKey, Hyper], tuple[GANState, Named]]


def make_gan_init(
    recipe: Callable[[Hyper], GANRecipe],
) -> Callable[[PRNGKey, Hyper, Any], GANState]:
    """`init(key, hyper, x) -> state` for data like x (B, ...), a pure function.

    >>> from fnn import models, nn, optim, schedules
    >>> player = Player(nn.linear(1), optim.sgd(), schedules.constant(0.1))
    >>> recipe = lambda hyper: GANRecipe(
    ...     player, player, prior=lambda key, n: jax.random.normal(key, (n, 2)))
    >>> state = make_gan_init(recipe)(jax.random.key(0), {}, jnp.ones((4, 1)))
    >>> state.generator.params['kernel'].shape, state.discriminator.params['kernel'].shape
    ((2, 1), (1, 1))
    """

    def init(key, hyper, x):
        expect_key(key)
        expect_arrays("init: x", x)
        r = _build(recipe, hyper)
        latents = jax.eval_shape(lambda key: r.prior(key, tree.length(x)), key)

        def start(player: Player, key: PRNGKey, x: Any) -> TrainState:
            params, model_state = player.model.init(key, x)
            return TrainState(
                step=jnp.int32(0),
                params=params,
                model_state=model_state,
                opt_state=player.optimizer.init(params),
                measure_state=init_states(r.measures, params),
            )

        return GANState(
            generator=start(r.generator, fold_name(key, "generator"), latents),
            discriminator=start(r.discriminator, fold_name(key, "discriminator"), x),
        )

    return init


def make_gan_step(recipe: Callable[[Hyper], GANRecipe]) -> GANStep:
    """`step(state, x, key, hyper) -> state, metrics`, a pure function; jit it, the state donated.

        discriminator:  mean of loss(D(x), 1) + loss(D(G(z)), 0)
        generator:      mean of loss(D(G(z)), 1)             with the new D, and a new z

    Args of the step:
      state: from `make_gan_init`, or from the step before.
      x: data, (B, ...), or `Weighted(x, weights)` with weights (B,) for the discriminator's mean.
      key: the run's noise stream; the step uses `fold_in(key, state.step)`, so pass the same key
        to every step.
      hyper: what the recipe is built from.

    Returns: the new state and the metrics of both players by name: 'generator_loss', at balance
      log 2; 'discriminator_loss', at balance 2 log 2; 'generator_lr', 'discriminator_lr', and what
      the measures record.
    Source: Goodfellow et al. 2014, arXiv:1406.2661, Algorithm 1 with k = 1, and section 3 for the
      generator's loss, whose gradient does not vanish where the discriminator is sure.

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

    def step(state, x, key, hyper):
        expect_state("step", state, GANState)
        expect_key(key)
        r = _build(recipe, hyper)
        noise = jax.random.fold_in(key, state.step)
        x, weights = x if isinstance(x, Weighted) else (x, jnp.ones(tree.length(x), jnp.float32))

        def latents(name: str) -> Any:
            return r.prior(fold_name(noise, name), tree.length(x))

        made, _ = r.generator.model.apply(
            state.generator.params,
            state.generator.model_state,
            latents("of the judged"),
            key=fold_name(noise, "made"),
            train=True,
        )
        judge = _as_recipe(r, r.discriminator, _judge_both(r), _loss(r.loss, 1.0, 0.0))
        batch = (x, made), weights
        discriminator, judged = update(
            judge, state.discriminator, batch, fold_name(noise, "discriminator")
        )
        learn = _as_recipe(r, r.generator, _make_and_judge(r, discriminator), _loss(r.loss, 1.0))
        batch = latents("of the learner"), jnp.ones_like(weights)
        generator, learned = update(learn, state.generator, batch, fold_name(noise, "generator"))
        metrics = {f"discriminator_{name}": value for name, value in flat(judged).items()}
        metrics |= {f"generator_{name}": value for name, value in flat(learned).items()}
        return GANState(generator=generator, discriminator=discriminator), metrics

    return step


def _build(recipe: Callable[[Hyper], GANRecipe], hyper: Hyper) -> GANRecipe:
    """The recipe for `hyper`, its fields checked."""
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


def _judge_both(r: GANRecipe) -> Apply:
    """The discriminator's logits of data and of made examples."""

    def apply(params, model_state, x, *, key=None, train=False):
        logits = []
        for name, examples in zip(("data", "made"), x, strict=True):
            z, model_state = r.discriminator.model.apply(
                params, model_state, examples, key=fold_name(key, name), train=train
            )
            logits.append(z)
        return logits, model_state

    return apply


def _make_and_judge(r: GANRecipe, judge: TrainState) -> Apply:
    """The discriminator's logits of what the generator makes of latents."""

    def apply(params, model_state, x, *, key=None, train=False):
        made, model_state = r.generator.model.apply(
            params, model_state, x, key=fold_name(key, "made"), train=train
        )
        z, _ = r.discriminator.model.apply(
            judge.params, judge.model_state, made, key=fold_name(key, "judged"), train=train
        )
        return [z], model_state

    return apply


def _loss(loss: Loss, *sides: float) -> Loss:
    """The sum of the losses of each logits against its side; the targets are example weights."""

    def summed(logits, weights):
        parts = [
            weighted_losses(loss, z, jnp.full_like(z, side))
            for z, side in zip(logits, sides, strict=True)
        ]
        values = functools.reduce(jnp.add, [part.values for part in parts])
        of_logits = functools.reduce(jnp.multiply, [part.weights for part in parts])
        return Weighted(values, of_logits * weights.reshape(-1, *[1] * (values.ndim - 1)))

    return summed
