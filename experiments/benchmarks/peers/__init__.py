"""The same training by fnn and by its peers, each as its own documentation writes it.

A contender is a function of a workload: it builds model, optimizer and data, and gives a function
that makes so many steps and waits for them. Nothing is imported here before it is asked for, so
that `starts.py` can time the imports.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

from experiments.benchmarks.peers.work import Work

Steps = Callable[[int], object]  # makes so many steps, and waits for the last


class Contender(NamedTuple):
    """Where a contender is: the package that it needs, and its module and function here."""

    package: str
    module: str
    function: str
    images_only: bool = False

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def make(self) -> Callable[[Work], Steps]:
        """Its function, imported."""
        return getattr(importlib.import_module(f"{__name__}.{self.module}"), self.function)


FNN: dict[str, Contender] = {
    "fnn step": Contender("fnn", "of_fnn", "by_steps"),
    "fnn fit": Contender("fnn", "of_fnn", "by_fit"),
    "fnn fit, no measures": Contender("fnn", "of_fnn", "by_fit_without_measures"),
    "fnn run": Contender("fnn", "of_fnn", "by_run"),
    "fnn fit, plain": Contender("fnn", "of_fnn", "by_fit_plain"),
}
PEERS: dict[str, Contender] = {
    "torch": Contender("torch", "of_torch", "eager"),
    "torch compiled": Contender("torch", "of_torch", "compiled"),
    "torch channels-last": Contender("torch", "of_torch", "channels_last", True),
    "torch channels-last compiled": Contender("torch", "of_torch", "channels_last_compiled", True),
    "Flax NNX": Contender("flax", "of_nnx", "jitted"),
    "Flax NNX cached": Contender("flax", "of_nnx", "cached"),
    "Flax Linen": Contender("flax", "of_linen", "jitted"),
    "Equinox": Contender("equinox", "of_equinox", "jitted"),
}
