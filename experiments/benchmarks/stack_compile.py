"""How the compilation of `stack` grows with its depth: ratios of one process, goal 1.3.

    python experiments/benchmarks/stack_compile.py

A block of norm, dense, gelu, dropout, dense on a residual stream, at two depths. Timed are tracing
and compilation, of `init` and of a whole gradient step with Adam, with JAX's caches emptied before
each. The two depths alternate, round by round; a ratio is a median over the rounds, with the
quartiles beside it. `unrolled` is the same with scan=False, at fewer layers, for the contrast. Run
nothing else meanwhile.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.peers.ratios import ratio_of, shown
from fnn import models, optim, tree
from fnn.activations import gelu
from fnn.combinators import residual, sequential, stack
from fnn.types import Model

KEY, X = jax.random.key(0), jax.ShapeDtypeStruct((8, 16), jnp.float32)


@dataclass(frozen=True, kw_only=True)
class Config:
    shallow: int = 12
    deep: int = 96
    unrolled: int = 24  # layers of the deeper one of the contrast
    rounds: int = 7


def network(n: int, scan: bool) -> Model:
    branch = sequential(
        models.layer_norm(), models.dense(32), gelu, models.dropout(0.1), models.dense(X.shape[-1])
    )
    return stack(residual(branch), n, scan=scan)


def init(model: Model) -> Any:
    return jax.jit(lambda key, x: model.init(key, x))


def step(model: Model) -> Any:
    optimizer = optim.adam()

    def update(params, state, opt_state, x, key):
        def loss(params):
            return jnp.square(model.apply(params, state, x, key=key, train=True)[0]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params, 1e-3)
        return tree.add(params, updates), opt_state, value

    return jax.jit(update)


def arguments(model: Model) -> tuple:
    params, state = jax.eval_shape(model.init, KEY, X)
    return params, state, jax.eval_shape(optim.adam().init, params), X, KEY


def seconds(program: Any, given: tuple) -> float:
    jax.clear_caches()
    start = time.perf_counter()
    program.lower(*given).compile()
    return time.perf_counter() - start


def grow(name: str, build: Callable, depths: tuple[int, int], scan: bool, rounds: int) -> None:
    made = [network(n, scan) for n in depths]
    given = [(KEY, X) if build is init else arguments(model) for model in made]
    times = np.array(
        [
            [seconds(build(model), each) for model, each in zip(made, given, strict=True)]
            for _ in range(rounds + 1)
        ]
    )[1:]  # the first round also loads the compiler
    ratio = ratio_of(times[:, 1], times[:, 0])
    shallow, deep = np.median(times, axis=0)
    print(
        f"{name:16} {depths[1]:3} layers / {depths[0]:3}: {shown(ratio, 2)}   "
        f"{shallow:6.3f} s and {deep:6.3f} s",
        flush=True,
    )


def main(config: Config) -> None:
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}; tracing and compilation")
    depths, few = (config.shallow, config.deep), (config.shallow, config.unrolled)
    grow("init", init, depths, True, config.rounds)
    grow("step", step, depths, True, config.rounds)
    grow("step, unrolled", step, few, False, min(config.rounds, 3))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
