"""What a training step needs on a device that you may not have: memory, operations, time.

    python -m fnn.plan train.py:recipe --x "int32[64,256]" --y "int32[64,256]" \\
        --hyper lr=0.001 --target v5e:2x4

Nothing is executed. For a TPU the real compiler says what the program needs, where libtpu is
installed (`pip install 'fnn[tpu-compile]'`); otherwise it is read from shapes and from the program
compiled for this machine.
"""

import argparse
import importlib
import importlib.util
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from fnn import tree
from fnn._arguments import check_exports
from fnn.expect import did_you_mean
from fnn.flops import count_flops
from fnn.recipe import RecipeFunction
from fnn.train.state import make_init
from fnn.train.step import make_step

__all__ = ["Chip", "Estimate", "estimate", "largest_batch"]


class Chip(NamedTuple):
    """A device on paper; None is unknown."""

    memory: int  # bytes
    flops: float | None  # dense operations per second in bfloat16
    bandwidth: float | None  # bytes per second to and from its memory


# From the vendors' data sheets.
CHIPS = {
    "v4": Chip(32 * 2**30, 275e12, 1.228e12),
    "v5e": Chip(16 * 2**30, 197e12, 0.819e12),
    "v5p": Chip(95 * 2**30, 459e12, 2.765e12),
    "v6e": Chip(32 * 2**30, 918e12, 1.640e12),
    "a100": Chip(80 * 10**9, 312e12, 2.039e12),
    "h100": Chip(80 * 10**9, 989e12, 3.35e12),
    "h200": Chip(141 * 10**9, 989e12, 4.8e12),
}
TPUS = ("v4", "v5e", "v5p", "v6e")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one training step; bytes and operations are those of each device."""

    target: str
    devices: int
    batch_size: int  # of all devices
    params: int  # bytes
    opt_state: int  # bytes
    batch: int  # bytes
    gradients: int  # bytes, a part of the temporaries
    temporaries: int | None  # bytes of activations, gradients and workspace; None if it cannot fit
    total: int  # bytes at the peak
    memory: int  # bytes that the device has
    flops: float
    bytes_moved: float | None  # by the compiler's count, which may count a scan's body once
    seconds: float | None  # at least, from the peaks of operations and bandwidth
    source: str  # of the temporaries and the bytes moved

    @property
    def fits(self) -> bool:
        """Whether the peak is below the memory of the device."""
        return self.temporaries is not None and self.total <= self.memory

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization at most: the fraction of the time that operations need."""
        chip = CHIPS.get(self.target.partition(":")[0])
        if chip is None or chip.flops is None or not self.seconds:
            return None
        return self.flops / chip.flops / self.seconds

    def __str__(self) -> str:
        mib = lambda n: "-" if n is None else f"{n / 2**20:,.0f} MiB"  # noqa: E731
        verdict = "fits" if self.fits else "DOES NOT FIT"
        rows = {
            "target": f"{self.target}, batch {self.batch_size} on {self.devices} of them",
            "parameters": mib(self.params),
            "optimizer state": mib(self.opt_state),
            "batch": mib(self.batch),
            "temporaries": f"{mib(self.temporaries)}, of them gradients {mib(self.gradients)}",
            "peak": f"{mib(self.total)} of {mib(self.memory)}: {verdict}",
            "operations": f"{self.flops / 1e12:.3g} TFLOP",
            "bytes moved": "-" if self.bytes_moved is None else f"{self.bytes_moved / 1e9:.3g} GB",
            "time at least": "-" if self.seconds is None else f"{1e3 * self.seconds:.3g} ms",
            "MFU at most": "-" if self.mfu is None else f"{self.mfu:.0%}",
            "source": self.source,
        }
        return "\n".join(f"{name:16} {value}" for name, value in rows.items())


def estimate(
    recipe: RecipeFunction, batch: PyTree, target: str = "here", *, hyper: PyTree = None
) -> Estimate:
    """What a step of the recipe needs on each device of the target.

    The batch is split over the devices and everything else is copied to each.

    Args:
      batch: (x, y), arrays or ShapeDtypeStructs; only shapes and dtypes are read.
      target: 'here', or a chip and its number or topology: 'h100:8', 'v5e:2x4', 'v5p:2x2x1'.
      hyper: the recipe's hyperparameters; {} if None.

    Returns: for a TPU with libtpu, what its compiler says; otherwise parameters, state and
      operations from shapes, and temporaries and bytes moved from the program that XLA compiles
      for this machine and one device's part of the batch, which an accelerator's may differ from.
    Raises: ValueError for an unknown target, and a batch that does not divide.

    >>> from fnn import Recipe, losses, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(3), losses.cross_entropy, optim.adam(),
    ...                               schedules.constant(0.1))
    >>> batch = jax.ShapeDtypeStruct((8, 4), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.int32)
    >>> found = estimate(recipe, batch, 'h100:2')
    >>> found.params, found.opt_state, found.batch, found.fits
    (60, 124, 80, True)
    """
    chip, devices = _parse(target)
    size = tree.length(batch)
    if size % devices:
        raise ValueError(
            f"plan: expected a batch that {devices} devices divide, got {size} examples; use "
            f"{devices * max(1, size // devices)}"
        )
    own = _resized(batch, size // devices)
    inputs = _Inputs.of(recipe, own, {} if hyper is None else hyper)
    flops = count_flops(make_step(recipe), *inputs)
    need = _need(recipe, inputs, target, devices)
    times = [
        amount / peak
        for amount, peak in ((flops, chip.flops), (need.moved, chip.bandwidth))
        if amount is not None and peak is not None
    ]
    params = tree.nbytes(inputs.state.params)
    return Estimate(
        target=target,
        devices=devices,
        batch_size=size,
        params=params,
        opt_state=tree.nbytes(inputs.state.opt_state),
        batch=tree.nbytes(own),
        gradients=params,
        temporaries=need.temporaries,
        total=need.total,
        memory=chip.memory,
        flops=flops,
        bytes_moved=need.moved,
        seconds=max(times) if len(times) == 2 else None,
        source=need.source,
    )


def largest_batch(
    recipe: RecipeFunction,
    batch: PyTree,
    target: str = "here",
    *,
    hyper: PyTree = None,
    most: int = 65536,
) -> int:
    """The largest batch size of at most `most` that fits, within 1/16; 0 if none does.

    By doubling and bisection over `estimate`, whose arguments these are; sizes are multiples of
    the number of devices.

    >>> from fnn import Recipe, losses, nn, optim, schedules
    >>> recipe = lambda hyper: Recipe(nn.linear(3), losses.cross_entropy, optim.adam(),
    ...                               schedules.constant(0.1))
    >>> batch = jax.ShapeDtypeStruct((8, 4), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.int32)
    >>> largest_batch(recipe, batch, 'h100:8', most=64)
    64
    """
    devices = _parse(target)[1]

    def fits(parts: int) -> bool:
        return estimate(recipe, _resized(batch, parts * devices), target, hyper=hyper).fits

    limit = most // devices
    if limit < 1 or not fits(1):
        return 0
    low = 1
    while low < limit and fits(min(2 * low, limit)):
        low = min(2 * low, limit)
    high = min(2 * low, limit + 1)
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * devices


def _resized(batch: PyTree, size: int) -> tuple[Any, ...]:
    """The shapes of a batch of another size."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), tuple(batch))


class _Inputs(NamedTuple):
    """The arguments of a step, as shapes."""

    state: Any
    batch: Any
    key: Any
    hyper: Any

    @classmethod
    def of(cls, recipe: RecipeFunction, batch: Any, hyper: Any) -> "_Inputs":
        key = jax.eval_shape(lambda: jax.random.key(0))
        hyper = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, hyper))
        state = jax.eval_shape(make_init(recipe), key, hyper, batch[0])
        return cls(state, batch, key, hyper)


class _Need(NamedTuple):
    temporaries: int | None
    total: int
    moved: float | None
    source: str


def _need(recipe: RecipeFunction, inputs: _Inputs, target: str, devices: int) -> _Need:
    step = jax.jit(make_step(recipe), donate_argnums=0)
    if target.partition(":")[0] in TPUS and importlib.util.find_spec("libtpu"):
        try:
            return _read(_compile_for_tpu(step, inputs, target, devices), "the TPU compiler")
        except Exception as error:  # of the compiler; its type is private
            used = _used(str(error))
            if used is None:
                raise
            arguments = tree.nbytes((inputs.state, inputs.batch))
            return _Need(None, arguments + used, None, "the TPU compiler: out of memory")
    return _read(step.lower(*inputs).compile(), "shapes and this machine's compiler")


def _read(compiled: Any, source: str) -> _Need:
    stats = compiled.memory_analysis()
    new = stats.output_size_in_bytes - stats.alias_size_in_bytes
    total = stats.argument_size_in_bytes + stats.temp_size_in_bytes + max(0, new)
    cost = compiled.cost_analysis() or {}
    return _Need(stats.temp_size_in_bytes, total, cost.get("bytes accessed"), source)


def _compile_for_tpu(step: Any, inputs: _Inputs, target: str, devices: int) -> Any:
    mesh = Mesh(np.array(tpu_devices(target)), ("data",))
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    batch = _resized(inputs.batch, devices * tree.length(inputs.batch))

    def placed(shapes: Any, sharding: Any) -> Any:
        return jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes
        )

    arguments = placed(inputs._replace(batch=None), whole)._replace(batch=placed(batch, split))
    return compile_for_tpu(step, *arguments)


def compile_for_tpu(jitted: Any, *shapes: Any) -> Any:
    """A jitted function compiled for the TPUs on which its arguments, as shapes, are placed."""
    lowered = jitted.trace(*shapes).lower(lowering_platforms=("tpu",))
    with warnings.catch_warnings():
        # JAX stores such a program in its compilation cache, but cannot read it without a TPU.
        warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
        return lowered.compile()


def tpu_devices(target: str) -> list[Any]:
    """TPUs to compile for, by libtpu; they cannot run anything."""
    for name, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    }.items():
        os.environ.setdefault(name, value)
    from jax.experimental import topologies

    # A host has four chips: fewer are some of them.
    devices, name = _parse(target)[1], target.partition(":")[0]
    host = f"{name}:2x2" if name in ("v5e", "v6e") else f"{name}:2x2x1"
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=host if devices < 4 else target
    )
    return list(topology.devices[:devices])


def _used(message: str) -> int | None:
    """Bytes that a compiler says do not fit, 0 if it gives none; None for other errors."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = re.search(r"(?:temporaries \(|Used )([\d.]+)([KMG])", message)
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return 0 if found is None else int(float(found[1]) * units[found[2]])


def _parse(target: str) -> tuple[Chip, int]:
    name, _, shape = target.partition(":")
    if target == "here":
        return Chip(_memory_here(), None, None), 1
    if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)*", shape or "1"):
        raise ValueError(
            f"plan: expected a target such as 'here', 'h100:8' or 'v5e:2x4', of the chips "
            f"{', '.join(CHIPS)}, got {target!r}; "
            f"{did_you_mean(name, CHIPS, 'write the chip, a colon and the number')}"
        )
    return CHIPS[name], math.prod(map(int, (shape or "1").split("x")))


def _memory_here() -> int:
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


check_exports(__name__)


def _shape(text: str) -> jax.ShapeDtypeStruct:
    found = re.fullmatch(r"(\w+)\[(\d+(?:,\d+)*)\]", text.replace(" ", ""))
    if found is None:
        raise argparse.ArgumentTypeError(
            f"expected a dtype and a shape such as float32[128,784], got {text!r}"
        )
    return jax.ShapeDtypeStruct(tuple(map(int, found[2].split(","))), jnp.dtype(found[1]))


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected name=number, got {text!r}") from None


def _load(text: str) -> Callable[..., Any]:
    """Loads the function 'package.module:name' or 'file.py:name'; the default name is 'recipe'."""
    where, _, name = text.partition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(where).stem, where)
        if spec is None or spec.loader is None or not Path(where).exists():
            raise argparse.ArgumentTypeError(f"expected a file, got {where!r}, which is not there")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    if not hasattr(module, name or "recipe"):
        raise argparse.ArgumentTypeError(
            f"expected {where} to define {name or 'recipe'!r}; write {where}:its_name"
        )
    function: Callable[..., Any] = getattr(module, name or "recipe")
    return function


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the estimate of a recipe in a module or a file."""
    parser = argparse.ArgumentParser(prog="python -m fnn.plan", description=main.__doc__)
    parser.add_argument("recipe", type=_load, help="package.module:recipe, or file.py:recipe")
    parser.add_argument("--x", type=_shape, required=True, help="such as float32[128,784]")
    parser.add_argument("--y", type=_shape, required=True, help="such as int32[128]")
    parser.add_argument("--target", default="here", help="here, h100:8, v5e:2x4, ...")
    parser.add_argument("--hyper", type=_setting, nargs="*", default=[], help="such as lr=0.001")
    parser.add_argument("--largest", action="store_true", help="find the largest batch that fits")
    given = parser.parse_args(arguments)
    batch, hyper = (given.x, given.y), dict(given.hyper)
    try:
        print(estimate(given.recipe, batch, given.target, hyper=hyper))
        if given.largest:
            size = largest_batch(given.recipe, batch, given.target, hyper=hyper)
            print(f"{'largest batch':16} {size}")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
