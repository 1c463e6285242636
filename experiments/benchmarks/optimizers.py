"""The update of fnn's optimizers against that of optax's: ratios of time and memory in one process.

    python experiments/benchmarks/optimizers.py
    python experiments/benchmarks/optimizers.py --only adam muon --trees gpt2

Two trees of float32 parameters: `gpt2`, the shapes of GPT-2 small (124 M elements in 148 leaves),
and `small`, 1,000 leaves of 16 to 256 elements. A program maps gradients, state and parameters to
the new state and parameters, in place; the programs of fnn and Optax alternate, round by round. The
position of the arrays in memory changes the times of one program by up to 10 %, so the arrays are
allocated four times, fnn's first or Optax's first. A ratio of times is the geometric mean of the
four medians, with the quartiles of all rounds beside it. The memory is that of the compiled
program: temporary buffers, and results that are not written in place. Run nothing else meanwhile.

shampoo, soap and kron have no peer in Optax, and are compared with its adamw.
"""

import functools
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from optax import contrib

from experiments.benchmarks.peers.names import expect_names
from fnn import optim, tree
from fnn.types import Optimizer

LR = 1e-3

PAIRS: dict[str, Callable[[], tuple[Optimizer, Any]]] = {
    "sgd": lambda: (optim.sgd(), optax.sgd(LR)),
    "momentum": lambda: (optim.sgd(momentum=0.9), optax.sgd(LR, momentum=0.9)),
    "nesterov": lambda: (
        optim.sgd(momentum=0.9, nesterov=True),
        optax.sgd(LR, momentum=0.9, nesterov=True),
    ),
    "rmsprop": lambda: (optim.rmsprop(), optax.rmsprop(LR, eps_in_sqrt=False)),
    "adam": lambda: (optim.adam(), optax.adam(LR)),
    "adamw": lambda: (optim.adamw(weight_decay=0.1), optax.adamw(LR, weight_decay=0.1)),
    "clip, adamw": lambda: (
        optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(weight_decay=0.1)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(LR, weight_decay=0.1)),
    ),
    "lion": lambda: (optim.lion(weight_decay=0.1), optax.lion(LR, weight_decay=0.1)),
    "sign_sgd": lambda: (optim.sign_sgd(), optax.sign_sgd(LR)),
    "rprop": lambda: (optim.rprop(), optax.rprop(LR)),
    "adagrad": lambda: (optim.adagrad(), optax.adagrad(LR)),
    "adadelta": lambda: (optim.adadelta(), optax.adadelta(LR)),
    "nadam": lambda: (optim.nadam(), optax.nadam(LR)),
    "nadamw": lambda: (optim.nadamw(weight_decay=0.1), optax.nadamw(LR, weight_decay=0.1)),
    "radam": lambda: (optim.radam(), optax.radam(LR)),
    "adamax": lambda: (optim.adamax(), optax.adamax(LR)),
    "amsgrad": lambda: (optim.amsgrad(), optax.amsgrad(LR)),
    "adabelief": lambda: (optim.adabelief(), optax.adabelief(LR)),
    "yogi": lambda: (optim.yogi(), optax.yogi(LR)),
    "adan": lambda: (optim.contrib.adan(), optax.adan(LR)),
    "ademamix": lambda: (optim.contrib.ademamix(), contrib.ademamix(LR)),
    "adopt": lambda: (optim.contrib.adopt(), contrib.adopt(LR)),
    "lamb": lambda: (optim.lamb(weight_decay=0.1), optax.lamb(LR, weight_decay=0.1)),
    "lars": lambda: (optim.lars(weight_decay=0.1), optax.lars(LR, weight_decay=0.1)),
    "adafactor": lambda: (optim.adafactor(), optax.adafactor(LR)),
    "muon": lambda: (optim.muon(companion=optim.adam()), contrib.muon(LR)),
    "shampoo": lambda: (optim.contrib.shampoo(), optax.adamw(LR)),
    "soap": lambda: (optim.contrib.soap(), optax.adamw(LR)),
    "kron": lambda: (optim.contrib.kron(key=jax.random.key(0)), optax.adamw(LR)),
    "schedule_free_sgd": lambda: (optim.schedule_free_sgd(), contrib.schedule_free_sgd(LR)),
    "schedule_free_adamw": lambda: (optim.schedule_free_adamw(), contrib.schedule_free_adamw(LR)),
    "prodigy": lambda: (optim.contrib.prodigy(), contrib.prodigy(LR)),
    "dadapt_adam": lambda: (optim.contrib.dadapt_adam(), contrib.dadapt_adamw(LR)),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    rounds: int = 16
    only: tuple[str, ...] = tuple(PAIRS)  # optimizers
    trees: tuple[str, ...] = ("gpt2", "small")
    calls: int = 30  # of the program for the small tree, per round
    layers: int = 12  # of gpt2; an update by muon or kron of all 12 takes many seconds


def gpt2(layers: int = 12) -> dict[str, Any]:
    width, hidden = 768, 4 * 768

    def linear(i: int, o: int) -> dict[str, tuple[int, ...]]:
        return {"kernel": (i, o), "bias": (o,)}

    def norm() -> dict[str, tuple[int, ...]]:
        return {"scale": (width,), "bias": (width,)}

    block = {
        "norm_1": norm(), "attention": linear(width, 3 * width), "out": linear(width, width),
        "norm_2": norm(), "up": linear(width, hidden), "down": linear(hidden, width),
    }  # fmt: skip
    tables = {"tokens": (50257, width), "positions": (1024, width)}
    return {**tables, "blocks": [block] * layers, "norm": norm()}


def small() -> dict[str, Any]:
    return {"layers": [{"kernel": (16, 16), "bias": (16,)}] * 500}


def numbers(shapes: Any, scale: float) -> Any:
    """Normal numbers; one draw serves all leaves, whose values do not matter here."""

    def leaf(shape: tuple[int, ...]) -> jax.Array:
        return jnp.asarray(scale * _draw()[: np.prod(shape)].reshape(shape))

    return jax.tree.map(leaf, shapes, is_leaf=_is_shape)


@functools.cache
def _draw() -> np.ndarray:
    return np.random.default_rng(0).normal(size=50257 * 768).astype(np.float32)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple)


def _spec(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


class Side:
    """One library's program and its arrays."""

    def __init__(self, init: Callable, update: Callable, shapes: Any):
        self.init, self.shapes = jax.jit(init), shapes
        step = jax.jit(update, donate_argnums=1)
        params = jax.tree.map(_spec, shapes, is_leaf=_is_shape)
        self.program = step.lower(params, (params, jax.eval_shape(init, params))).compile()

    def fill(self) -> None:
        params = numbers(self.shapes, 0.02)
        self.carry = params, self.init(params)
        self.grads = numbers(self.shapes, 1e-3)

    def free(self) -> None:
        del self.carry, self.grads

    def seconds(self, calls: int) -> float:
        """Median of some calls, without Python's collection of garbage, which meets some alone."""
        times = []
        gc.disable()
        for _ in range(calls):
            start = time.perf_counter()
            self.carry = self.program(self.grads, self.carry)
            jax.tree.leaves(self.carry[0])[0].block_until_ready()  # with all other results
            times.append(time.perf_counter() - start)
        gc.enable()
        return float(np.median(times))

    @property
    def graph(self) -> str:
        """The compiled program, without where its lines come from."""
        text = self.program.as_text() or ""
        return re.sub(r", metadata=\{.*?\}", "", text.split("\n%", 1)[-1])

    @property
    def memory(self) -> int:
        """Bytes beyond the arguments."""
        used = self.program.memory_analysis()
        assert used is not None
        return used.temp_size_in_bytes + used.output_size_in_bytes - used.alias_size_in_bytes


def of_fnn(optimizer: Optimizer, shapes: Any) -> Side:
    def update(grads, carry):
        params, state = carry
        updates, state = optimizer.update(grads, state, params, LR)
        return tree.add(params, updates), state

    return Side(optimizer.init, update, shapes)


def of_optax(optimizer: Any, shapes: Any) -> Side:
    def update(grads, carry):
        params, state = carry
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return Side(optimizer.init, update, shapes)


def _one_round(fnn: Side, peer: Side, i: int, calls: int) -> tuple[float, float]:
    """Seconds of both; who goes first changes from round to round, since it may cost or gain."""
    if i % 2 == 0:
        return fnn.seconds(calls), peer.seconds(calls)
    theirs = peer.seconds(calls)
    return fnn.seconds(calls), theirs


def alternate(fnn: Side, peer: Side, rounds: int, calls: int) -> np.ndarray:
    """Seconds, (4, rounds / 4, 2): of four sets of arrays, by round and library."""
    times = []
    for first, second in [(fnn, peer), (peer, fnn)] * 2:
        first.fill()
        second.fill()
        rows = [_one_round(fnn, peer, i, calls) for i in range(max(1, rounds // 4) + 1)]
        times.append(rows[1:])  # the first warms up
        fnn.free()
        peer.free()
    return np.array(times)


def compare(name: str, shapes: Any, rounds: int, calls: int) -> None:
    ours, theirs = PAIRS[name]()
    fnn, peer = of_fnn(ours, shapes), of_optax(theirs, shapes)
    times = alternate(fnn, peer, rounds, calls)
    ratios = times[..., 0] / times[..., 1]
    middle = np.exp(np.log(np.median(ratios, axis=1)).mean())
    low, high = np.quantile(ratios, [0.25, 0.75])
    each, mib = 1e3 * np.median(times, axis=(0, 1)), 2**-20
    print(
        f"{name:20} {middle:6.3f} ({low:.3f}-{high:.3f})  {each[0]:9.3f} ms against "
        f"{each[1]:9.3f}   {fnn.memory * mib:8.1f} MiB against {peer.memory * mib:8.1f}"
        f"{'   the same program' * (fnn.graph == peer.graph)}",
        flush=True,
    )


def main(config: Config) -> None:
    expect_names("--only", config.only, PAIRS)
    expect_names("--trees", config.trees, ("gpt2", "small"))
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}")
    for kind in config.trees:
        shapes = gpt2(config.layers) if kind == "gpt2" else small()
        leaves = len(jax.tree.leaves(shapes, is_leaf=_is_shape))
        print(f"\n{kind}: {leaves} leaves; ratio of times fnn / optax (quartiles)")
        for name in config.only:
            compare(name, shapes, config.rounds, 1 if kind == "gpt2" else config.calls)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
