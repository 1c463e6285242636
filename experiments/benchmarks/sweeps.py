"""Many small runs: one `sweep` of fnn beside its peers, which train them sequentially.

    python experiments/benchmarks/sweeps.py
    python experiments/benchmarks/sweeps.py --members 256 --peers torch "Flax Linen"

The MLP 2-16-2 of `training.py` with as many learning rates as members. The time of fnn is that of a
whole call of `sweep`, from settings to table, once compiled; beside it the first call, with the
compilation. The time of a peer is extrapolated from the steps of `runs` members, once compiled: its
data stay on the device, and initialization, tables and anything else between two runs count
nothing. All take turns, round by round; a ratio is fnn's time over the peer's of the same round,
below 1 where fnn is ahead: the median, with the quartiles beside it.

Run nothing else meanwhile: where others kept more than a tenth of a core busy, the table is marked,
and the exit status is 1. All figures go to <out>/sweeps.json.
"""

import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.peers import PEERS, Steps
from experiments.benchmarks.peers.machine import MOST_OTHERS, Others, describe, finish
from experiments.benchmarks.peers.names import expect_names
from experiments.benchmarks.peers.ratios import ratio_of, shown
from experiments.benchmarks.peers.work import WORKS
from fnn.train import silent, sweep
from fnn.types import Batch, Data

WORK = WORKS["tiny"]


@dataclass(frozen=True, kw_only=True)
class Config:
    members: int = 1024
    steps: int = 400  # of each member
    runs: int = 2  # of a peer in a round
    rounds: int = 5
    peers: tuple[str, ...] = ("torch", "Flax NNX", "Flax NNX cached", "Flax Linen", "Equinox")
    out: Path = Path("runs/benchmarks")
    most_others: float = MOST_OTHERS  # cores that others may keep busy


def nothing(state: Any) -> tuple[()]:
    """Keep none of a member's state: the history says all."""
    return ()


def seconds_of_sweep(recipe: Any, data: Data, config: Config) -> float:
    hypers = {"lr": jnp.geomspace(1e-4, 1e-1, config.members)}
    start = time.perf_counter()
    result = sweep(
        recipe,
        data,
        hypers,
        jax.random.split(jax.random.key(0), 1),
        steps=config.steps,
        batch_size=WORK.batch_size,
        keep=nothing,
        progress=silent,
    )
    taken = time.perf_counter() - start
    if len(result.table().rows) != config.members:
        sys.exit(f"sweeps.py: {len(result.table().rows)} of {config.members} members came back")
    return taken


def seconds_of_peer(steps: Steps, config: Config) -> float:
    """For all members, from those of `runs`."""
    start = time.perf_counter()
    for _ in range(config.runs):
        steps(config.steps)
    return (time.perf_counter() - start) / config.runs * config.members


def main(config: Config) -> None:
    expect_names("--peers", config.peers, PEERS)
    cores = len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", cores)  # as the docstring of `sweep` advises
    # Its key starts JAX, which then has its devices.
    from experiments.benchmarks.peers.of_fnn import recipe_of

    machine, others = describe(), Others()
    x, y = map(jnp.asarray, WORK.examples())
    data = Data(train=Batch(x, y), valid=Batch(x[:1], y[:1]))
    peers = {name: PEERS[name].make()(WORK) for name in config.peers if PEERS[name].installed}
    for steps in peers.values():
        steps(config.steps)
    recipe, _ = recipe_of(WORK)
    first = seconds_of_sweep(recipe, data, config)
    times: dict[str, list[float]] = {"fnn sweep": [], **{name: [] for name in peers}}
    for _ in range(config.rounds):
        times["fnn sweep"].append(seconds_of_sweep(recipe, data, config))
        for name, steps in peers.items():
            times[name].append(seconds_of_peer(steps, config))
    ours = times["fnn sweep"]
    print(f"{config.members} runs of {config.steps} steps, {WORK.title}; {machine['versions']}")
    print(f"  {'fnn sweep':20}{np.median(ours):10.2f} s   ({first:.2f} s with its compilation)")
    for name in peers:
        ratio, seconds = ratio_of(ours, times[name]), np.median(times[name])
        text = f"{shown(ratio, 4)}, {1 / ratio[1]:.0f} times as quick"
        print(f"  {name:20}{seconds:10.2f} s   fnn / {name} {text}")
    figures = {"times": times, "seconds_with_compilation": first}
    told = {"machine": machine, "config": asdict(config), **figures}
    finish(config.out / "sweeps.json", others, told, most=config.most_others)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config, description=__doc__))
