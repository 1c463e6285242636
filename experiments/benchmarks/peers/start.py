"""One start of one contender: the first steps of a workload, timed from before the imports.

    python experiments/benchmarks/peers/start.py <contender> <workload> <since>

`since` is the time, in seconds since 1970, at which the process was asked for. Prints JSON.
"""

import importlib
import json
import sys
import time
from pathlib import Path

from experiments.benchmarks.peers import FNN, PEERS
from experiments.benchmarks.peers.work import WORKS


def peak_mib() -> float:
    """The most memory that this process held; `ru_maxrss` may be that of the one before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [kib] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kib) / 1024


def main(name: str, workload: str, since: float) -> None:
    contender, began = {**FNN, **PEERS}[name], time.time()
    importlib.import_module(contender.package)
    make = contender.make()
    imported = time.time()
    steps = make(WORKS[workload])
    steps(1)
    first = time.time()
    steps(20)
    result = {
        "import_s": imported - began,
        "first_step_s": first - since,
        "peak_mib": peak_mib(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
