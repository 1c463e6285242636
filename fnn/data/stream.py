"""Batches of data that do not fit on the device, prefetched by a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from fnn import tree
from fnn.data._arrays import expect_native, expect_numbers
from fnn.data._columns import columns
from fnn.train._inputs import expect_key
from fnn.train._source import placed, upcoming
from fnn.types import PRNGKey

Indices = Int[np.ndarray, " _"]
_BLOCK = 2048  # examples whose order is computed at once, which is faster than per batch


class Stream:
    """An endless iterator of batches, returned by `stream`; a context manager that closes it."""

    def __init__(self, fetch: "_Fetch", step: int, ahead: int):
        self._fetch, self._step = fetch, step
        self._per_task = max(1, ahead // 2)  # batches of a task, whose overhead is tens of us
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fnn.data.stream")
        self._ready: deque[Any] = deque()  # batches, the last of which may be a _Failure
        self._tasks: deque[Future] = deque()
        self._closed = False
        for _ in range(ahead // self._per_task):
            self._submit()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._ready:
            if not self._tasks:
                raise StopIteration
            try:
                self._ready.extend(self._tasks.popleft().result())
            except BaseException:  # an interrupt while waiting
                self.close()
                raise
            self._submit()
        batch = self._ready.popleft()
        if isinstance(batch, _Failure):
            self.close()
            raise batch.error
        return batch

    def close(self) -> None:
        """Stop the thread after its current batch, and the iteration with it."""
        self._closed = True
        self._ready.clear()
        self._tasks.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _submit(self) -> None:
        self._tasks.append(self._pool.submit(self._fetch_task, self._step))
        self._step += self._per_task

    def _fetch_task(self, first: int) -> list[Any]:
        fetched: list[Any] = []
        for step in range(first, first + self._per_task):
            if self._closed:
                break
            try:
                fetched.append(self._fetch(step))
            except BaseException as error:
                return [*fetched, _Failure(error)]
        return fetched


class _Failure(NamedTuple):
    """An error of the thread, in place of a batch."""

    error: BaseException


def stream(
    data: Any,
    key: PRNGKey,
    batch_size: int,
    start_step: int = 0,
    ahead: int = 8,
    hosts: int = 1,
    host: int = 0,
) -> Stream:
    """The batches of a run from step `start_step` on, prefetched to the device.

    They are bitwise identical to the batches that `run` and `fit` index on the device: a loop of
    `make_step` over them repeats a run.

    Args:
      data: a pytree of arrays with the same first axis, such as a `Batch`: NumPy arrays, np.memmap,
        or anything with a shape and indexing by sorted rows, such as datasets of h5py.
      key: of the data order, `run_keys(key).order`; it is not consumed.
      batch_size: of all hosts together, a multiple of `hosts`, at most the number of examples.
      start_step: counted from 0; starting costs the same at any step.
      ahead: number of prefetched batches, at least 1; half of them are one task.
      hosts, host: number of hosts that share each batch, and the index of this one, which gets the
        `batch_size / hosts` consecutive rows of its index.

    Returns: `Stream`, an endless iterator of pytrees like `data`, and a context manager. An error
      of its thread is raised by the `next` for that batch, and ends the iteration.
    Raises: ValueError for data without examples or with unequal numbers of them, and for sizes that
      do not fit.

    >>> x = np.arange(10)
    >>> with stream(x, jax.random.key(0), batch_size=5) as batches:
    ...     epoch = [next(batches) for _ in range(2)]
    >>> sorted(np.concatenate(epoch).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    >>> with stream(x, jax.random.key(0), batch_size=5, start_step=1) as batches:
    ...     bool((next(batches) == epoch[1]).all())
    True
    """
    data = columns("stream", data)
    n = _examples(data)
    expect_key("stream", key)
    if not 1 <= batch_size <= n:
        raise ValueError(
            f"stream: expected batch_size from 1 to the {n} examples, got {batch_size}; "
            "use a smaller batch or more data"
        )
    if not (0 <= host < hosts and batch_size % hosts == 0):
        raise ValueError(
            f"stream: expected a host from 0 to hosts - 1 and a batch_size that hosts divides, got "
            f"host {host} of {hosts} and batch_size {batch_size}"
        )
    if start_step < 0 or ahead < 1:
        raise ValueError(
            f"stream: expected start_step of at least 0 and ahead of at least 1, got {start_step} "
            f"and {ahead}"
        )
    local = batch_size // hosts
    rows = slice(host * local, (host + 1) * local)
    return Stream(_Fetch(data, key, n, batch_size, rows), start_step, ahead)


class _Pair(NamedTuple):
    x: Any
    y: Any


class Streamed(_Pair):
    """Training examples in host memory or on disk, for `Data.train`.

    `fit` then reads its batches from a `stream`; the result is bitwise identical to that for the
    same arrays on the device.

    Args:
      x, y: as the data of `stream`; also lists of numbers and tensors of PyTorch, which are
        converted, and indexable sequences without a shape, such as columns of Hugging Face
        datasets.

    Raises: ValueError for rows of unequal length or of text.

    >>> from fnn.types import Data
    >>> x = np.zeros((10, 3), np.float32)            # np.load('x.npy', mmap_mode='r'), say
    >>> data = Data(train=Streamed(x, x), valid=(x[:2], x[:2]))
    >>> with data.train.batches(jax.random.key(0), batch_size=5, start_step=0) as batches:
    ...     next(batches)[0].shape
    (5, 3)
    """

    def __new__(cls, x: Any, y: Any) -> "Streamed":
        return super().__new__(cls, *(columns(f"Streamed.{n}", v) for n, v in (("x", x), ("y", y))))

    def batches(self, key: PRNGKey, batch_size: int, start_step: int) -> Stream:
        """The batches from step `start_step` on, prefetched by a thread."""
        return stream((self.x, self.y), key, batch_size, start_step)


class _Fetch:
    """The batch of a step, a function of the step with the indices of one block cached."""

    def __init__(self, data: Any, key: PRNGKey, n: int, batch_size: int, rows: slice):
        self._data, self._local = data, rows
        self._order = (key, n, batch_size, max(1, min(_BLOCK, n) // batch_size))
        self._block, self._indices = -1, np.empty((0, 0), np.int32)
        # These settings are local to a thread, so the fetching one needs a copy.
        config: Any = jax.config
        self._wide, self._device = config.jax_enable_x64, config.jax_default_device

    def __call__(self, step: int) -> Any:
        with jax.enable_x64(self._wide), jax.default_device(self._device):
            indices = self._indices_of(step)
            return placed(jax.tree.map(lambda a: _rows(a, indices), self._data))

    def _indices_of(self, step: int) -> Indices:
        key, n, batch_size, steps = self._order
        block, i = divmod(step, steps)
        if block != self._block:
            self._indices = upcoming(key, block * steps, n, batch_size, steps)
            self._block = block
        return self._indices[i, self._local]


def _rows(array: Any, indices: Indices) -> np.ndarray:
    if isinstance(array, np.ndarray):  # indexing an np.memmap itself is slow
        return np.asarray(array).take(indices, axis=0)
    # Sorted and unique, as h5py requires, so that close rows of a file are read together.
    unique, inverse = np.unique(indices, return_inverse=True)
    return np.asarray(array[unique]).take(inverse, axis=0)


def _examples(data: Any) -> int:
    for path, leaf in zip(tree.paths(data), jax.tree.leaves(data), strict=True):
        name = f"data[{path!r}]" if path else "data"
        expect_native("stream", leaf, name)
        if isinstance(leaf, np.ndarray | jax.Array) or not hasattr(leaf, "shape"):
            expect_numbers("stream", leaf, name)
    lengths = {leaf.shape[0] if leaf.shape else 0 for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"stream: expected arrays with the same number of examples, got {sorted(lengths)}; "
            "check the data"
        )
    return lengths.pop()
