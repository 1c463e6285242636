"""Batches of images per second, from memory and from a memory-mapped file, against the peers.

    python experiments/benchmarks/data.py

The file is written to a temporary folder, and removed. The batches of fnn and of 'NumPy, put' are
on the device, those of the others in their own arrays. The augmentation is a crop with padding and
a flip; each peer's is its fastest for whole batches. The contenders take turns, round by round; a
ratio is the median over the rounds of fnn's rate over the peer's, above 1 where fnn is faster, with
the quartiles beside it. Batches prefetched before a turn do not count. Run nothing else meanwhile.
A file that fits in the system's cache is read at the speed of memory.
"""

import importlib.util
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import tyro

from experiments.benchmarks.peers.ratios import ratio_of, shown
from fnn.data import stream
from fnn.data.augment import crop, flip, per_example
from fnn.order import order, order_block

KEY, PADDING = jax.random.key(0), 4
SHAPE = (32, 32, 3)  # uint8, as CIFAR-10's
AHEAD = 16  # batches that a contender may have fetched before its turn, at most
augment = per_example(crop(PADDING), flip())
augment_jitted = jax.jit(augment)


@dataclass(frozen=True, kw_only=True)
class Config:
    file_megabytes: int = 4096
    memory_megabytes: int = 150  # as much as CIFAR-10 has
    batch_size: int = 128
    batches: int = 400  # of each contender in a round
    rounds: int = 15
    workers: int = 2  # of torch's DataLoader, beside the one without


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images and labels in memory, or in files; workers open the files themselves."""

    images: np.ndarray | Path
    labels: np.ndarray

    def open(self) -> np.ndarray:
        if isinstance(self.images, Path):
            return np.load(self.images, mmap_mode="r")
        return self.images


# Each contender is an endless iterator of batches, (images, labels).


def fnn_stream(source: Source, batch_size: int, augmented: bool, stack: ExitStack) -> Iterator:
    batches = stack.enter_context(stream((source.open(), source.labels), KEY, batch_size))
    if not augmented:
        return batches
    return (augment_jitted(jax.random.fold_in(KEY, i), b) for i, b in enumerate(batches))


def fnn_in_step(source: Source, batch_size: int, augmented: bool, stack: ExitStack) -> Iterator:
    """The arrays lie on the device; the batches are made one by one in a program, as `run` does."""
    data = jax.tree.map(jnp.asarray, (source.open(), source.labels))
    steps, n = max(1, 2048 // batch_size), len(source.labels)

    @jax.jit
    def last_of_some(data, first):
        def next_batch(carry, indices):  # the carry materializes each batch, as a step does
            step, _ = carry
            batch = jax.tree.map(lambda a: a.at[indices].get(mode="promise_in_bounds"), data)
            made = augment(jax.random.fold_in(KEY, step), batch) if augmented else batch
            return (step + 1, made), None

        start = first, jax.tree.map(lambda a: a[:batch_size], data)
        upcoming = order_block(KEY, first, n, batch_size, steps)
        return jax.lax.scan(next_batch, start, upcoming)[0][1]

    for first in itertools.count(0, steps):
        last = jax.block_until_ready(last_of_some(data, jnp.int32(first)))
        yield from [last] * steps


def numpy_indexing(
    source: Source, batch_size: int, augmented: bool, stack: ExitStack, *, put: bool
) -> Iterator:
    x, y, rng = source.open(), source.labels, np.random.default_rng(0)
    while True:
        permutation = rng.permutation(len(y))
        for start in range(0, len(y) - batch_size + 1, batch_size):
            indices = permutation[start : start + batch_size]
            batch = x[indices], y[indices]
            batch = by_numpy(rng, *batch) if augmented else batch
            yield jax.device_put(batch) if put else batch


def by_numpy(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> tuple:
    edge, size = (PADDING, PADDING), len(x)
    padded = np.pad(x, ((0, 0), edge, edge, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, SHAPE[:2], axis=(1, 2))
    top, left = rng.integers(2 * PADDING + 1, size=(2, size))
    cropped = windows[np.arange(size), top, left].transpose(0, 2, 3, 1)
    flips = rng.random(size) < 0.5
    return np.where(flips[:, None, None, None], cropped[:, :, ::-1], cropped), y


class TorchData(torch.utils.data.Dataset):
    """Asked for whole batches, which is much faster than for one example at a time."""

    def __init__(self, source: Source, augmented: bool):
        self.source, self.augmented = source, augmented
        self.x: Any = None

    def __len__(self) -> int:
        return len(self.source.labels)

    def __getitem__(self, indices: list[int]) -> tuple:
        x, y = self.opened()
        rows = torch.as_tensor(np.asarray(x[indices]))
        return (by_torch(rows) if self.augmented else rows), y[indices]

    def opened(self) -> tuple:
        """Here, and not before, so that each worker opens the file for itself."""
        if self.x is None:
            x: Any = self.source.open()
            self.x = x if isinstance(x, np.memmap) else torch.from_numpy(x)
            self.y = torch.from_numpy(self.source.labels)
        return self.x, self.y


def by_torch(x: torch.Tensor) -> torch.Tensor:
    padded = torch.nn.functional.pad(x, (0, 0, PADDING, PADDING, PADDING, PADDING))
    top, left = torch.randint(2 * PADDING + 1, (2, len(x), 1))
    rows, columns = top + torch.arange(SHAPE[0]), left + torch.arange(SHAPE[1])
    flips = torch.rand(len(x), 1) < 0.5
    columns = torch.where(flips, columns.flip(1), columns)
    return padded[torch.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None, :]]


def torch_loader(
    source: Source, batch_size: int, augmented: bool, stack: ExitStack, *, workers: int
) -> Iterator:
    data = TorchData(source, augmented)
    shuffled = torch.utils.data.RandomSampler(data)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=None,
        sampler=torch.utils.data.BatchSampler(shuffled, batch_size, drop_last=True),
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,  # JAX has threads: no fork
    )
    return again_and_again(loader)


def again_and_again(batches: Iterable) -> Iterator:
    while True:
        yield from batches


def grain_dataset(source: Source, batch_size: int, augmented: bool, stack: ExitStack) -> Iterator:
    import grain

    rng = np.random.default_rng(0)

    class Rows(grain.sources.RandomAccessDataSource):
        x, y = source.open(), source.labels

        def __len__(self) -> int:
            return len(self.y)

        def __getitem__(self, index: Any) -> tuple:
            return self.x[index], self.y[index]

    examples = grain.MapDataset.source(Rows()).seed(0).shuffle().repeat()
    batches = examples.batch(batch_size, drop_remainder=True)
    if augmented:
        batches = batches.map(lambda batch: by_numpy(rng, *batch))
    return iter(batches.to_iter_dataset(grain.ReadOptions(prefetch_buffer_size=AHEAD)))


def contenders(source: Source, config: Config) -> dict[str, Callable]:
    """Ours first."""
    ours: dict[str, Callable] = {"fnn, stream": fnn_stream}
    if not isinstance(source.images, Path):
        ours = {"fnn, in the step": fnn_in_step, **ours}
    peers: dict[str, Callable] = {
        "NumPy, put": partial(numpy_indexing, put=True),
        "NumPy": partial(numpy_indexing, put=False),
        "torch, no workers": partial(torch_loader, workers=0),
        f"torch, {config.workers} workers": partial(torch_loader, workers=config.workers),
    }
    if importlib.util.find_spec("grain"):
        peers["grain"] = grain_dataset
    return ours | peers


def compare(where: str, source: Source, augmented: bool, config: Config) -> None:
    print(f"\n{where}, {'crop and flip' if augmented else 'no augmentation'}", flush=True)
    with ExitStack() as stack:
        running = {
            name: make(source, config.batch_size, augmented, stack)
            for name, make in contenders(source, config).items()
        }
        for batches in running.values():
            seconds(batches, 2)  # compile, start the workers
        rounds = [
            [seconds(batches, config.batches) for batches in running.values()]
            for _ in range(config.rounds)
        ]
    show(list(running), np.array(rounds), config.batches)


def seconds(batches: Iterator, count: int) -> float:
    """The time of `count` batches, without those that were fetched before."""
    draw(batches, 2 * AHEAD)
    start = time.perf_counter()
    draw(batches, count)
    taken = time.perf_counter() - start
    time.sleep(0.1)  # what goes on fetching in the background is not in the next one's way
    return taken


def draw(batches: Iterator, count: int) -> None:
    for batch in itertools.islice(batches, count - 1):
        del batch
    jax.block_until_ready(next(batches))


def show(names: list[str], times: np.ndarray, batches: int) -> None:
    """A line for each contender, and the ratios to it of fnn's."""
    rates = np.median(batches / times, axis=0)
    ours = [i for i, name in enumerate(names) if name.startswith("fnn")]
    for j, name in enumerate(names):
        line = f"  {name:20} {rates[j]:9.0f} batches/s"
        if j not in ours:
            for i in ours:
                line += f"   {names[i]}: {shown(ratio_of(times[:, j], times[:, i]), 2)}"
        print(line, flush=True)


def time_order(config: Config) -> None:
    """One batch of the order of 10^9 examples: alone, and among those of a block."""
    n, batch_size, steps = 10**9, config.batch_size, max(1, 2048 // config.batch_size)
    one = jax.jit(lambda step: order(KEY, step, n, batch_size))
    block = jax.jit(lambda step: order_block(KEY, step, n, batch_size, steps))
    for name, work, share in (("alone", one, 1), (f"of {steps} at once", block, steps)):
        work(jnp.int32(0)).block_until_ready()
        times = []
        for step in range(300):
            start = time.perf_counter()
            work(np.int32(step * 7919)).block_until_ready()
            times.append((time.perf_counter() - start) / share * 1e6)
        low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
        print(
            f"order of 10^9, a batch {name:14} {middle:7.1f} ({low:.1f}-{high:.1f}) us", flush=True
        )
    print("order of 10^9, state: 0 bytes (a key and the step)", flush=True)


def make_file(path: Path, megabytes: int) -> np.ndarray:
    """Images of noise, written in blocks; the labels."""
    n, rows = max(2048, megabytes * 2**20 // int(np.prod(SHAPE))), 8192
    noise = np.random.default_rng(0).integers(256, size=(rows, *SHAPE), dtype=np.uint8)
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *SHAPE))
    for start in range(0, n, rows):
        file[start : start + rows] = noise[: n - start]
    file.flush()
    return (np.arange(n) % 10).astype(np.int32)


def main(config: Config) -> None:
    print(
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__}; "
        f"batches of {config.batch_size} x {SHAPE} uint8"
    )
    if not importlib.util.find_spec("grain"):
        print("grain is not installed: skipped")
    time_order(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        labels = make_file(path, config.memory_megabytes)
        in_memory = Source(images=np.load(path), labels=labels)
        for augmented in (False, True):
            compare(f"{config.memory_megabytes} MB in memory", in_memory, augmented, config)
        labels = make_file(path, config.file_megabytes)
        in_file = Source(images=path, labels=labels)
        for augmented in (False, True):
            compare(f"{config.file_megabytes} MB in a file", in_file, augmented, config)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
