"""What a timing depends on: versions, cores, and who else was busy. Needs no other package."""

import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

MOST_OTHERS = 0.1  # of a core, while a table is good
_PACKAGES = ("fnn", "jax", "jaxlib", "flax", "equinox", "optax", "torch", "numpy")
_TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """Versions, processor, cores, and the load average over 1, 5 and 15 minutes."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def finish(
    path: Path, others: "Others", figures: dict[str, Any], most: float = MOST_OTHERS
) -> None:
    """Write what was found, and leave with 1 where others were busy meanwhile."""
    busy = others.cores()
    whole = {"good": busy <= most, "others": busy, **figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1, default=str))
    print(f"\n{path}")
    if busy > most:
        program = Path(sys.argv[0]).name
        sys.exit(f"{program}: NOT GOOD: others kept {busy:.2f} cores busy; run it again")


class Others:
    """How many cores others kept busy since this was made.

    That is what the whole machine worked, less what this process and the children that it waited
    for did, and what the hypervisor gave to another machine.
    """

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float:
        wall, machine, own = (b - a for a, b in zip(self._start, self._now(), strict=True))
        return max(0.0, machine - own) / wall

    @staticmethod
    def _now() -> tuple[float, float, float]:
        # user, nice, system, idle, iowait, irq, softirq, steal, of all processors, in ticks
        first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, first)
        busy = (user + nice + system + irq + softirq + steal) / _TICKS
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return time.perf_counter(), busy, own


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
