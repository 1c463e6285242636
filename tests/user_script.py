"""A typed user script with its own layer, loss, metric, gradient transform and optimizer.

`test_typing.py` type-checks it and runs `main`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn import (
    Batch,
    Data,
    Metric,
    Model,
    Optimizer,
    Recipe,
    TrainState,
    Transform,
    losses,
    metrics,
    nn,
    optim,
    schedules,
)
from fnn.activations import relu
from fnn.models.mlp import MLPConfig, mlp
from fnn.train import FitResult, fit, make_init, make_run, make_step, predict, silent
from fnn.types import Hyper, ModelState, Params, PRNGKey, Scalar


def shift(size: int, initial: float = 0.0) -> Model:
    """A layer that adds a learned vector, written as a pair of pure functions."""

    def init(key: PRNGKey, x: jax.Array) -> tuple[Params, ModelState]:
        return {"shift": jnp.full((size,), initial, jnp.float32)}, ()

    def apply(
        params: Params,
        model_state: ModelState,
        x: jax.Array,
        *,
        key: PRNGKey | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, ModelState]:
        return x + params["shift"], model_state

    return Model(init=init, apply=apply)


def smoothed_cross_entropy(smoothing: Scalar) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """An own loss: a function of outputs and targets with one value per example."""

    def loss(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(outputs)
        picked = jnp.take_along_axis(log_p, targets[:, None], axis=1)[:, 0]
        return -(1 - smoothing) * picked - smoothing * log_p.mean(axis=1)

    return loss


class Confidence(NamedTuple):
    total: jax.Array
    examples: jax.Array


def confidence() -> Metric:
    """An own metric: the mean probability of the predicted class."""

    def measure(outputs: jax.Array, targets: jax.Array) -> Confidence:
        p = jax.nn.softmax(outputs).max(axis=-1)
        return Confidence(p.sum(), jnp.float32(p.size))

    return Metric(measure=measure, value=lambda sums: sums.total / sums.examples)


def halve() -> Transform:
    """An own gradient transform without state."""

    def update(grads: Params, state: tuple[()], params: Params) -> tuple[Params, tuple[()]]:
        return jax.tree.map(lambda g: 0.5 * g, grads), state

    return Transform(init=lambda params: (), update=update)


def signed_momentum(decay: Scalar) -> Optimizer:
    """An own optimizer: the sign of an exponential moving average of the gradients."""

    def init(params: Params) -> Params:
        return jax.tree.map(jnp.zeros_like, params)

    def update(
        grads: Params, state: Params, params: Params, lr: Scalar, objective: object = None
    ) -> tuple[Params, Params]:
        average = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, state, grads)
        return jax.tree.map(lambda m: -lr * jnp.sign(m), average), average

    return Optimizer(init=init, update=update)


def recipe(hyper: Hyper) -> Recipe:
    return Recipe(
        model=nn.sequential(
            nn.linear(16), relu, shift(16), nn.dropout(hyper["rate"]), nn.linear(2)
        ),
        loss=smoothed_cross_entropy(hyper["smoothing"]),
        optimizer=optim.chain(halve(), optim.adamw(weight_decay=hyper["weight_decay"])),
        schedule=schedules.warmup_cosine(hyper["lr"], warmup_steps=10, total_steps=200),
        metrics={"accuracy": metrics.accuracy(), "confidence": confidence()},
    )


def own_optimizer(hyper: Hyper) -> Recipe:
    return Recipe(
        model=mlp(MLPConfig(widths=(16,), out_features=2), rate=hyper["rate"]),
        loss=losses.cross_entropy,
        optimizer=signed_momentum(0.9),
        schedule=schedules.constant(hyper["lr"]),
        metrics={"accuracy": metrics.accuracy()},
    )


def make_batch(seed: int, examples: int) -> Batch:
    x = np.random.default_rng(seed).normal(size=(examples, 2)).astype(np.float32)
    return Batch(x, (x[:, 0] * x[:, 1] > 0).astype(np.int32))


def main() -> dict[str, float]:
    """Trains both recipes; returns the validation accuracy of each."""
    train, valid = make_batch(0, 256), make_batch(1, 64)
    data, key = Data(train=train, valid=valid), jax.random.key(0)

    hyper = {"lr": 0.03, "rate": 0.05, "smoothing": 0.05, "weight_decay": 0.01}
    result: FitResult = fit(
        recipe,
        data,
        key=key,
        hyper=hyper,
        steps=200,
        batch_size=32,
        eval_every=100,
        progress=silent,
    )
    outputs = predict(recipe, result.state, valid.x, hyper=hyper)
    accuracy = float(np.mean(np.argmax(outputs, axis=-1) == valid.y))

    hyper = {"lr": 0.01, "rate": 0.05}
    state: TrainState = jax.jit(make_init(own_optimizer))(key, hyper, train.x[:32])
    step = jax.jit(make_step(own_optimizer), donate_argnums=0)
    state, recorded = step(state, (train.x[:32], train.y[:32]), key, hyper)
    assert int(state.step) == 1 and bool(jnp.isfinite(recorded["loss"]))

    run = jax.jit(make_run(own_optimizer, steps=200, batch_size=32, eval_every=200))
    state, history = run(key, hyper, data)
    return {"recipe": accuracy, "own_optimizer": float(history.valid["accuracy"][-1])}


if __name__ == "__main__":
    print(main())
