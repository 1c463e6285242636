"""float32, bfloat16 and float16 side by side on handwritten digits.

    python experiments/precision.py                 the table
    python experiments/precision.py --seeds 20      more runs for each row

One program for each row and all its seeds. "loss apart" is the mean distance of the training losses
from those in float32, batch by batch, as a fraction of the mean loss. "activations" is what a step
of 64 examples stores for its gradient: more than half, since batch norm stores its statistics and
the normalized values in float32. Parameters and the optimizer's state are float32 in every row.

No --resume: a row is one compiled program, which stores nothing before its end.

Measured (JAX 0.10.2, 2 cores of an Intel Xeon, shared with other work, n = 5, 58 s in all):

    computed in                 test accuracy  loss apart  skipped  parameters  activations
    float32                    98.59 ± 0.55 %      0.00 %        0   342,056 B    606,208 B
    bfloat16                   98.67 ± 0.56 %      0.79 %        0   342,056 B    401,408 B
    float16                    98.67 ± 0.56 %      0.47 %        0   342,056 B    401,408 B
    float16, loss not scaled   98.59 ± 0.48 %      0.46 %        0   342,056 B    401,408 B

The losses of two seeds are 18.7 % apart: 16 bits change less than the seed. The gradients of this
task are large enough for float16 as they are. On this CPU 16 bits are not faster, since it
has no fast matrix products of them: the step took 4.4 ms in float32, 6 to 11 ms in the others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import shared
from experiments.digits import load
from experiments.shared import Count, Fraction, NonNegative, Positive
from fnn import losses, metrics, models, nn, optim, schedules, tree
from fnn.nn import cast, mixed_bfloat16, mixed_float16
from fnn.recipe import Recipe, RecipeFunction
from fnn.train import make_evaluate, make_run
from fnn.types import Hyper, Params, PRNGKey


@dataclass(frozen=True, kw_only=True)
class Config(shared.Options):
    """Train the recipe of digits.py in each precision, and print one table."""

    lr: Positive = 3e-3  # peak of the learning rate
    longest_warmup = 50  # of the default below
    warmup_steps: Annotated[int | None, shared.warmup(longest_warmup)] = None
    weight_decay: NonNegative = 0.3  # of kernels, per step and unit of lr
    clip_norm: Positive = 1.0  # largest norm of the gradient; a larger one is scaled down
    dropout_rate: Fraction = 0.2  # fraction of the hidden units that a step sets to 0
    widths: shared.Widths = (256, 256)  # units of each hidden layer
    steps: Count = 600  # updates of every run
    batch_size: Annotated[int, shared.between(1, 1258)] = 64  # examples per step
    seed: int = 0  # of the first run's split, initial weights, order and dropout
    seeds: shared.SeveralSeeds = 5  # runs of each row, with this seed and the following ones


def float16_unscaled(recipe: Recipe) -> Recipe:
    """As `mixed_float16`, but without a loss scale."""
    return recipe._replace(model=cast(recipe.model, jnp.float16))


PRECISIONS: dict[str, Callable[[Recipe], Recipe]] = {
    "float32": lambda recipe: recipe,
    "bfloat16": mixed_bfloat16,
    "float16": mixed_float16,
    "float16, loss not scaled": float16_unscaled,
}


def make_recipe(config: Config, precision: Callable[[Recipe], Recipe]) -> RecipeFunction:
    """The recipe of digits.py in one precision."""

    def recipe(hyper: Hyper) -> Recipe:
        shape = models.mlp.MLPConfig(widths=config.widths, out_features=10, norm=nn.batch_norm)
        kernels = tree.matching("*kernel")
        single = Recipe(
            model=models.mlp.mlp(shape, rate=hyper["dropout_rate"]),
            loss=losses.cross_entropy,
            optimizer=optim.chain(
                optim.clip_by_global_norm(hyper["clip_norm"]),
                optim.adamw(weight_decay=hyper["weight_decay"], mask=kernels),
            ),
            schedule=schedules.warmup_cosine(
                hyper["lr"], warmup_steps=hyper["warmup_steps"], total_steps=config.steps
            ),
            metrics={"accuracy": metrics.accuracy()},
        )
        return precision(single)

    return recipe


class Found(NamedTuple):
    """The result of training in one precision."""

    accuracy: Float[np.ndarray, " seeds"]  # of the test part, in percent
    loss: Float[np.ndarray, "seeds steps"]  # of the training batches
    skipped: int  # steps of all seeds that the loss scale skipped
    parameters: int  # bytes that the optimizer moves
    activations: int  # bytes that one step keeps for its gradient
    milliseconds: float  # of a step of all seeds


def train(config: Config, precision: Callable[[Recipe], Recipe]) -> Found:
    """All seeds in one program."""
    recipe, hyper = make_recipe(config, precision), config.hyper
    keys = jax.vmap(jax.random.key)(jnp.arange(config.seed, config.seed + config.seeds))
    data, test = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(load, keys))
    run = make_run(recipe, steps=config.steps, batch_size=config.batch_size)
    program = jax.jit(jax.vmap(run, (0, None, 0))).lower(keys, hyper, data).compile()
    start = time.monotonic()
    states, history = jax.block_until_ready(program(keys, hyper, data))
    seconds = time.monotonic() - start

    evaluated = jax.jit(jax.vmap(make_evaluate(recipe), (0, 0, None)))(states, test, hyper)
    one, state = jax.tree.map(lambda leaf: leaf[0], states), states.opt_state
    kept = activations(recipe(hyper), one.params, one.model_state, data.train.x[0], config)
    return Found(
        accuracy=100 * np.asarray(evaluated["accuracy"]),
        loss=np.asarray(history.train["loss"]),
        skipped=int(state.skipped.sum()) if hasattr(state, "skipped") else 0,
        parameters=tree.nbytes(one.params),
        activations=kept,
        milliseconds=1000 * seconds / config.steps,
    )


def activations(recipe: Recipe, params: Any, model_state: Any, x: Any, config: Config) -> int:
    """Bytes of the activations, per example, that a forward pass stores for the gradient."""

    def pullback(params: Params, x: Any, key: PRNGKey) -> Any:
        def forward(params: Params) -> Any:
            return recipe.model.apply(params, model_state, x, key=key, train=True)[0]

        return jax.vjp(forward, params)[1]

    batch = x[: config.batch_size]
    kept = jax.tree.leaves(jax.eval_shape(pullback, params, batch, jax.random.key(0)))
    return tree.nbytes([leaf for leaf in kept if leaf.shape[:1] == batch.shape[:1]])


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of two sets of loss curves, in percent of the mean of the first."""
    return 100 * np.abs(a - b).mean() / np.abs(a).mean()


def main(config: Config) -> None:
    """Train in each precision, and print the table."""
    print(
        f"{'computed in':26} {'test accuracy':>16} {'n':>3} {'loss apart':>11} {'skipped':>8} "
        f"{'parameters':>11} {'activations':>12} {'ms a step':>10}"
    )
    single: Found | None = None
    for name, precision in PRECISIONS.items():
        found = train(config, precision)
        single = single or found
        mean, std = found.accuracy.mean(), found.accuracy.std(ddof=1)
        print(
            f"{name:26} {mean:7.2f} ± {std:4.2f} % {config.seeds:3} "
            f"{apart(single.loss, found.loss):9.2f} % {found.skipped:8} "
            f"{found.parameters:9,} B {found.activations:10,} B {found.milliseconds:10.2f}",
            flush=True,
        )
    assert single is not None
    other = apart(single.loss, np.roll(single.loss, 1, axis=0))
    print(f"For comparison, the losses of two seeds in float32 are {other:.2f} % apart.")


if __name__ == "__main__":
    shared.command(main, Config)
