"""The loops around what JAX has compiled, for fnn and the peers on JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.peers.work import Work


def on_device(work: Work) -> list[Any]:
    return [(jnp.asarray(x), jnp.asarray(y)) for x, y in work.batches()]


def repeated(step: Callable[[Any, Any, Any], tuple[Any, Any]], state: Any, batches: list) -> Any:
    """`steps(n)` of `step(state, x, y) -> state, loss`, over the batches in turn."""
    last = state

    def steps(n: int) -> None:
        nonlocal last
        for i in range(n):
            last, loss = step(last, *batches[i % len(batches)])
        jax.block_until_ready(loss)

    return steps


def value_and_grads(function: Callable[[Any, Any, Any], Any], params: Any, work: Work) -> Any:
    """`steps(n)`: the value, and the gradients for `params` and x, of `function(params, x, y)`."""
    [batch] = on_device(work)
    both = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))

    def steps(n: int) -> None:
        for _ in range(n):
            results = both(params, *batch)
        jax.block_until_ready(results)

    return steps
