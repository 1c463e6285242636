"""A training step of fnn beside that of every peer installed: one table of ratios.

    python experiments/benchmarks/training.py
    python experiments/benchmarks/training.py --only gpt cnn --peers torch "Flax Linen"

fnn has five columns: a call of a jitted `make_step` for each step, the chunks of `fit`, the same of
a recipe with measures=(), the scan of `run`, and `fit` without the workarounds of `fnn.xla`; all
but the first also draw their batches. The peers measure the loss alone, and so do the first and
third; the others measure three norms as well. For the small convolutional network, the GPT and the
LSTM, fnn divides the batch over the cores (`devices=`), as it advises. The peers call a compiled
step, on batches on the device; each is written in `peers/` as its own documentation advises. All
contenders of a workload take turns in one process, round by round, in rotating order. A ratio is
fnn's time over the peer's in the same round, below 1 where fnn is ahead: the median over the
rounds, with the quartiles beside it. The best peer is the one with the least median time.

Run nothing else meanwhile: where others kept more than a tenth of a core busy, the row is marked,
and the exit status is 1. The table, with all times, goes to <out>/training.json, the image to
<out>/training.png. `torch compiled` needs a C++ compiler.
"""

import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from experiments.benchmarks.peers import FNN, PEERS, Contender, Steps
from experiments.benchmarks.peers.machine import MOST_OTHERS, Others, describe
from experiments.benchmarks.peers.names import expect_names
from experiments.benchmarks.peers.ratios import Ratio, ratio_of, shown
from experiments.benchmarks.peers.turns import in_turn
from experiments.benchmarks.peers.work import WORKS, Work
from fnn.report import figure
from fnn.train import keep_memory

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10)  # of the image


@dataclass(frozen=True, kw_only=True)
class Config:
    only: tuple[str, ...] = tuple(WORKS)  # workloads
    peers: tuple[str, ...] = tuple(PEERS)  # by their names in the table
    rounds: int = 9
    round_ms: float = 1000.0  # of a contender in a round; for `fnn fit` a chunk, as fit makes them
    pause_ms: float = 20.0  # between two, for the threads of the one before to fall asleep
    keep_memory: bool = False  # `train.keep_memory`: the process is one, so for all of them
    out: Path = Path("runs/benchmarks")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of a workload."""

    name: str
    title: str
    times: dict[str, list[float]]  # milliseconds a step of each contender, round by round
    others: float  # cores that others kept busy during the rounds
    notes: dict[str, str] = field(default_factory=dict)  # why a contender is missing

    def names(self, kind: dict[str, Contender]) -> list[str]:
        return [name for name in kind if name in self.times]

    def ms(self, name: str) -> float:
        return float(np.median(self.times[name]))

    def ratio(self, ours: str, theirs: str) -> Ratio:
        return ratio_of(self.times[ours], self.times[theirs])

    @property
    def best_peer(self) -> str | None:
        return min(self.names(PEERS), key=self.ms, default=None)

    @property
    def quiet(self) -> bool:
        return self.others <= MOST_OTHERS


def entered(work: Work, peers: tuple[str, ...]) -> dict[str, Contender]:
    """Who takes part."""
    ours = {"fnn step": FNN["fnn step"]} if work.is_function else FNN
    asked = ours | {name: PEERS[name] for name in PEERS if name in peers}
    images = len(work.batches(1)[0][0].shape) == 4
    return {name: c for name, c in asked.items() if images or not c.images_only}


def made(contender: Contender, work: Work) -> Steps:
    """Its steps, compiled by a first one."""
    steps = contender.make()(work)
    steps(1)
    return steps


def make_all(work: Work, peers: tuple[str, ...]) -> tuple[dict[str, Steps], dict[str, str]]:
    """The steps of all that can, and why the others cannot."""
    running, notes = {}, {}
    for name, contender in entered(work, peers).items():
        if not contender.installed:
            notes[name] = f"{contender.package} is not installed"
            continue
        try:
            running[name] = made(contender, work)
        except Exception as error:
            if name in FNN:
                raise
            # A compiler that is missing or refuses is no reason to lose the others.
            first = (str(error).strip().splitlines() or [""])[0]
            notes[name] = f"{type(error).__name__}: {first}"
    return running, notes


def seconds(steps: Steps, n: int) -> float:
    start = time.perf_counter()
    steps(n)
    return time.perf_counter() - start


def enough(steps: Steps, least: int, round_ms: float) -> int:
    """A number of steps, a multiple of `least`, that takes `round_ms`."""
    n = least
    while (taken := 1e3 * seconds(steps, n)) < round_ms / 4:
        n *= 2
    return least * max(1, round(n / least * round_ms / taken))


def least_steps(name: str, work: Work) -> int:
    return work.run_steps if name == "fnn run" else 1


def measure(work: Work, config: Config) -> Row:
    running, notes = make_all(work, config.peers)
    counts = {
        name: enough(steps, least_steps(name, work), config.round_ms)
        for name, steps in running.items()
    }
    names, others = list(running), Others()
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(config.rounds):
        for name in in_turn(names, i):
            time.sleep(config.pause_ms / 1e3)
            taken = seconds(running[name], counts[name])
            times[name].append(1e3 * taken / counts[name])
    return Row(name=work.name, title=work.title, times=times, others=others.cores(), notes=notes)


def show(row: Row) -> None:
    """All contenders of a workload, and the ratios of fnn's columns to each peer."""
    print(f"\n{row.title}")
    for name in row.times:
        line = f"  {name:29}{row.ms(name):11.4f} ms"
        if name in PEERS:
            ours = row.names(FNN)
            line += "".join(f"   {one[4:]} {shown(row.ratio(one, name))}" for one in ours)
        print(line)
    for name, note in row.notes.items():
        print(f"  {name:29} skipped: {note}")
    if not row.quiet:
        print(f"  NOT GOOD: others kept {row.others:.2f} cores busy")
    sys.stdout.flush()


def table(rows: list[Row]) -> str:
    """In Markdown: for each workload the best peer, and fnn's ratios to it."""
    lines = [f"| fnn / best peer | best peer | {' | '.join(FNN)} |", "|---" * (2 + len(FNN)) + "|"]
    for row in rows:
        best = row.best_peer
        cells = ["-"] * len(FNN)
        if best is not None:
            cells = [shown(row.ratio(n, best)) if n in row.times else "-" for n in FNN]
        mark = "" if row.quiet else " (not good)"
        lines.append(f"| {row.title}{mark} | {best or 'none'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(rows: list[Row], config: Config, machine: dict[str, Any]) -> str:
    def of(row: Row) -> dict[str, Any]:
        ratios = {
            ours: {theirs: row.ratio(ours, theirs) for theirs in row.names(PEERS)}
            for ours in row.names(FNN)
        }
        return {
            **asdict(row),
            "best_peer": row.best_peer,
            "good": row.quiet,
            "ratios_lower_median_upper": ratios,
        }

    whole = {
        "good": all(row.quiet for row in rows),
        "machine": machine,
        "config": asdict(config),
        "rows": [of(row) for row in rows],
    }
    return json.dumps(whole, indent=1, default=str)


def draw(rows: list[Row], path: Path) -> None:
    """Bars from 1, where fnn equals the best peer; to the left it is faster."""
    rows = [row for row in rows if row.best_peer]
    if not rows:
        return
    page = figure.figure(8, 1.2 + 0.6 * len(rows))
    axes = page.subplots()
    shades = (figure.TRAIN, figure.VALID, "#f59e0b", "#0f766e", figure.GRID)
    colors = dict(zip(FNN, shades, strict=True))
    for i, name in enumerate(FNN):
        has = [(place, row) for place, row in enumerate(rows) if name in row.times]
        ratios = np.array([row.ratio(name, row.best_peer or "") for _, row in has]).reshape(-1, 3)
        low, middle, high = ratios.T
        places = np.array([place for place, _ in has]) + 0.16 * (i - 2)
        axes.barh(places, middle - 1, 0.14, left=1, color=colors[name], label=name)
        axes.hlines(places, low, high, color="black", linewidth=1.2)
    axes.axvline(1, color=figure.INK, linewidth=0.8)
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    shares = [share for share in TICKS if left <= share <= right]
    axes.set_xticks(shares, [f"{share:g}" for share in shares])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [f"{row.name}\n{row.best_peer}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    good = "" if all(row.quiet for row in rows) else " (not good: others were busy)"
    figure.tidy(axes, f"time of a step, fnn / best peer{good}")
    axes.grid(True, axis="x", color=figure.GRID, linewidth=0.8)
    axes.grid(False, axis="y")
    page.legend(loc="outside lower center", ncols=len(FNN), fontsize=8, frameon=False)
    page.savefig(path, dpi=150)


def main(config: Config) -> None:
    expect_names("--only", config.only, WORKS)
    expect_names("--peers", config.peers, PEERS)
    if config.keep_memory:
        keep_memory()
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    machine = describe()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    print(f"{versions}\n{machine['processor']}, {machine['cores']} cores, {jax.devices()[0]}")
    print(f"load average {machine['load_average']}; ratios: fnn / peer", flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in config.only:
        rows.append(measure(WORKS[name], config))
        show(rows[-1])
        # After each, so that a run that is cut short leaves what it has.
        (config.out / "training.json").write_text(as_json(rows, config, machine))
        jax.clear_caches()
        gc.collect()
    draw(rows, config.out / "training.png")
    print(f"\n{table(rows)}\n\n{config.out}/training.json, {config.out}/training.png")
    if busy := [row.name for row in rows if not row.quiet]:
        sys.exit(f"training.py: others were busy during {busy}; run them again on a quiet machine")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
