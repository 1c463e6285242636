"""How compilation grows with depth: fnn's `stack` beside the loops over layers of its peers.

    python experiments/benchmarks/stack_compile.py
    python experiments/benchmarks/stack_compile.py --deep 48 --rounds 3

A block of norm, dense, gelu, dropout, dense on a residual stream, at two depths, each library
looping over one compiled block as its documentation advises: `linen.scan`, and for Equinox a scan
over vmapped blocks. Timed are tracing and compilation of `init` and of a whole gradient step with
Adam, with JAX's caches emptied before each. All alternate, round by round. A ratio is a median over
the rounds, with the quartiles beside it: of the two depths, whose goal for fnn is 1.3, and of fnn's
time over the peer's at the greater. `fnn, unrolled` is fnn with scan=False, at fewer layers, for
the contrast. torch.compile has no loop over layers. Run nothing else meanwhile.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.peers.ratios import ratio_of, shown
from experiments.benchmarks.peers.turns import in_turn
from fnn import nn, optim, tree
from fnn.activations import gelu
from fnn.nn import residual, sequential, stack

KEY, X = jax.random.key(0), jax.ShapeDtypeStruct((8, 16), jnp.float32)
WIDTH, HIDDEN, RATE, LR = X.shape[-1], 32, 0.1, 1e-3


@dataclass(frozen=True, kw_only=True)
class Config:
    shallow: int = 12
    deep: int = 96
    written_out: int = 24  # layers of the deeper one of the contrast
    rounds: int = 7


class Network(NamedTuple):
    """`init(key, x)` gives parameters and the optimizer's state; `step` takes and gives both."""

    init: Callable[..., Any]
    step: Callable[..., Any]


def of_fnn(n: int, scan: bool = True) -> Network:
    branch = sequential(
        nn.layer_norm(), nn.linear(HIDDEN), gelu, nn.dropout(RATE), nn.linear(WIDTH)
    )
    model, optimizer = stack(residual(branch), n, scan=scan), optim.adam()

    def init(key, x):
        params, _ = model.init(key, x)
        return params, optimizer.init(params)

    def step(params, opt_state, x, key):
        def loss(params):
            return jnp.square(model.apply(params, (), x, key=key, train=True)[0]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params, LR)
        return tree.add(params, updates), opt_state, value

    return Network(init, step)


def of_linen(n: int) -> Network:
    import optax
    from flax import linen

    class Block(linen.Module):
        @linen.compact
        def __call__(self, x, _):
            h = linen.gelu(linen.Dense(HIDDEN)(linen.LayerNorm()(x)))
            h = linen.Dropout(RATE, deterministic=False)(h)
            return x + linen.Dense(WIDTH)(h), None

    rngs: Any = {"params": True, "dropout": True}
    looped = linen.scan(Block, variable_axes={"params": 0}, split_rngs=rngs, length=n)
    model, optimizer = looped(), optax.adam(LR)

    def init(key, x):
        params = model.init({"params": key, "dropout": key}, x, None)
        return params, optimizer.init(params)

    def step(params, opt_state, x, key):
        def loss(params):
            return jnp.square(model.apply(params, x, None, rngs={"dropout": key})[0]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return Network(init, step)


def of_equinox(n: int) -> Network:
    import equinox as eqx
    import optax

    class Block(eqx.Module):
        norm: eqx.nn.LayerNorm
        up: eqx.nn.Linear
        down: eqx.nn.Linear
        drop: eqx.nn.Dropout

        def __init__(self, key):
            one, two = jax.random.split(key)
            self.norm, self.drop = eqx.nn.LayerNorm(WIDTH), eqx.nn.Dropout(RATE)
            self.up = eqx.nn.Linear(WIDTH, HIDDEN, key=one)
            self.down = eqx.nn.Linear(HIDDEN, WIDTH, key=two)

        def __call__(self, x, key):
            h = self.drop(jax.nn.gelu(self.up(self.norm(x))), key=key)
            return x + self.down(h)

    optimizer = optax.adam(LR)
    _, static = eqx.partition(Block(KEY), eqx.is_array)

    def init(key, x):
        params = eqx.filter(eqx.filter_vmap(Block)(jax.random.split(key, n)), eqx.is_array)
        return params, optimizer.init(params)

    def forward(params, x, key):
        def body(x, own):
            params, key = own
            return eqx.combine(params, static)(x, key), None

        return jax.lax.scan(body, x, (params, jax.random.split(key, n)))[0]

    def step(params, opt_state, x, key):
        def loss(params):
            keys = jax.random.split(key, len(x))
            return jnp.square(jax.vmap(partial(forward, params))(x, keys)).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(params, updates), opt_state, value

    return Network(init, step)


MAKERS = {"Flax Linen": of_linen, "Equinox": of_equinox}


def seconds(program: Callable, given: tuple) -> float:
    """Of tracing and compilation."""
    jax.clear_caches()
    start = time.perf_counter()
    jax.jit(program).lower(*given).compile()
    return time.perf_counter() - start


class Compiled(NamedTuple):
    """What is compiled of a library at two depths."""

    depths: tuple[int, int]
    programs: list[tuple[Callable, tuple]]  # with their arguments

    def time(self) -> list[float]:
        return [seconds(*program) for program in self.programs]


def compiled(make: Callable[[int], Network], depths: tuple[int, int], what: str) -> Compiled:
    programs: list[tuple[Callable, tuple]] = []
    for n in depths:
        network = make(n)
        carried = jax.eval_shape(network.init, KEY, X)
        given = (network.init, (KEY, X)) if what == "init" else (network.step, (*carried, X, KEY))
        programs.append(given)
    return Compiled(depths, programs)


def compare(what: str, entered: dict[str, Compiled], rounds: int) -> None:
    times: dict[str, list[list[float]]] = {name: [] for name in entered}
    for i in range(rounds + 1):
        for name in in_turn(entered, i):
            times[name].append(entered[name].time())
    ours = np.array(times["fnn"])[1:]  # the first round also loads the compiler
    for name, (depths, _) in entered.items():
        each = np.array(times[name])[1:]
        line = f"{what:5} {name:17} {depths[1]:3} layers / {depths[0]:3}: "
        line += f"{shown(ratio_of(each[:, 1], each[:, 0]), 2)}   {np.median(each[:, 1]):6.3f} s"
        if name in MAKERS:
            line += f"   fnn / {name} {shown(ratio_of(ours[:, 1], each[:, 1]), 2)}"
        print(line, flush=True)


def main(config: Config) -> None:
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}; tracing and compilation")
    depths, few = (config.shallow, config.deep), (config.shallow, config.written_out)
    makers = {name: of for name, of in MAKERS.items() if PEERS[name].installed}
    for what in ("init", "step"):
        entered = {"fnn": compiled(of_fnn, depths, what)}
        entered |= {name: compiled(of, depths, what) for name, of in makers.items()}
        entered["fnn, unrolled"] = compiled(partial(of_fnn, scan=False), few, what)
        compare(what, entered, config.rounds)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
