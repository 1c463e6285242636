"""How long fnn and its peers take to their first step, and how much memory: one table of ratios.

    python experiments/benchmarks/starts.py
    python experiments/benchmarks/starts.py --only gpt --peers torch "Flax Linen" --rounds 9

Each start is a process of its own; the contenders take turns, round by round. `first step` is from
the start of the process to the end of the first training step: cold, with nothing compiled before,
and warm, with the programs of an earlier start on disk (eager torch compiles nothing, so its two
are the same measurement twice). `import` is that of the contender's packages, NumPy being there
already; `peak` is the most memory that the process held, up to the end of step 21 of a cold start.
A ratio is fnn's over the peer's in the same round, below 1 where fnn is ahead: the median over the
rounds, with the quartiles beside it.

Run nothing else meanwhile: where others kept more than a tenth of a core busy, the table is marked,
and the exit status is 1. All figures go to <out>/starts.json.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from experiments.benchmarks.peers import FNN, PEERS, Contender
from experiments.benchmarks.peers.machine import Others, describe, finish
from experiments.benchmarks.peers.names import expect_names
from experiments.benchmarks.peers.ratios import ratio_of, shown
from experiments.benchmarks.peers.turns import in_turn
from experiments.benchmarks.peers.work import WORKS

START = Path(__file__).parent / "peers" / "start.py"
OURS = "fnn step"
DEFAULT_PEERS = ("torch", "Flax NNX", "Flax Linen", "Equinox")
FIGURES = {"cold": "first step, s", "warm": "warm, s", "import": "import, s", "peak": "peak, MiB"}

Starts = dict[str, list[float]]  # of each figure, round by round


@dataclass(frozen=True, kw_only=True)
class Config:
    only: tuple[str, ...] = ("stacked", "deep", "gpt", "cnn")  # workloads
    peers: tuple[str, ...] = DEFAULT_PEERS
    rounds: int = 5
    out: Path = Path("runs/benchmarks")


def environment(bytecode: str, directory: str | None = None) -> dict[str, str]:
    """The user's, with all that is compiled kept in `directory`; with None, kept nowhere.

    Python's own bytecode is kept either way, as it is of an installed package.
    """
    caches = ("JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    left_out = (*caches, "PYTHONDONTWRITEBYTECODE")
    given = {key: value for key, value in os.environ.items() if key not in left_out}
    given["PYTHONPYCACHEPREFIX"] = bytecode
    given["JAX_NUM_CPU_DEVICES"] = str(len(os.sched_getaffinity(0)))  # for fnn to share
    if directory is None:
        return given | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    return given | {
        **dict.fromkeys(caches, directory),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def start(name: str, workload: str, env: dict[str, str]) -> dict[str, float]:
    """One process; exits with its last words where it fails."""
    command = [sys.executable, str(START), name, workload, repr(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(f"starts.py: {name} failed to train {workload!r}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one_round(
    name: str, workload: str, empty: dict[str, str], kept: dict[str, str], into: Starts
) -> None:
    """A cold start, in an environment where nothing is kept, and a warm one."""
    cold = start(name, workload, empty)
    into["cold"].append(cold["first_step_s"])
    into["import"].append(cold["import_s"])
    into["peak"].append(cold["peak_mib"])
    into["warm"].append(start(name, workload, kept)["first_step_s"])


def measure(workload: str, entered: dict[str, Contender], rounds: int) -> dict[str, Starts]:
    names = list(entered)
    found: dict[str, Starts] = {name: {figure: [] for figure in FIGURES} for name in names}
    with tempfile.TemporaryDirectory() as folder:
        bytecode = str(Path(folder) / "bytecode")
        kept = {n: environment(bytecode, str(Path(folder) / str(i))) for i, n in enumerate(names)}
        for name in names:
            start(name, workload, kept[name])  # fills the caches
        for i in range(rounds):
            for name in in_turn(names, i):
                one_round(name, workload, environment(bytecode), kept[name], found[name])
    return found


def show(workload: str, found: dict[str, Starts]) -> None:
    print(f"\n{WORKS[workload].title}")
    for name, starts in found.items():
        for figure, title in FIGURES.items():
            line = f"  {name:29}{title:15}{np.median(starts[figure]):9.3f}"
            if name != OURS:
                ratio = ratio_of(found[OURS][figure], starts[figure])
                line += f"   fnn / {name} {shown(ratio, 2)}"
            print(line)
    sys.stdout.flush()


def main(config: Config) -> None:
    expect_names("--only", config.only, [n for n, work in WORKS.items() if not work.is_function])
    expect_names("--peers", config.peers, PEERS)
    machine, others, tables = describe(), Others(), {}
    entered = {OURS: FNN[OURS]} | {n: PEERS[n] for n in config.peers if PEERS[n].installed}
    for name in sorted(set(config.peers) - entered.keys()):
        print(f"{name} skipped: {PEERS[name].package} is not installed")
    for workload in config.only:
        tables[workload] = measure(workload, entered, config.rounds)
        show(workload, tables[workload])
    told = {"machine": machine, "config": asdict(config), "starts": tables}
    finish(config.out / "starts.json", others, told)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
