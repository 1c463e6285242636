"""Batches from data that do not fit on the device, fetched by a thread while the device works."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from fnn import tree
from fnn.data._arrays import expect_key, expect_native, expect_numbers
from fnn.data._columns import columns
from fnn.train._source import placed, upcoming
from fnn.types import PRNGKey

Indices = Int[np.ndarray, " _"]
_BLOCK = 2048  # examples whose order is computed at once: it is quicker than batch by batch


class Stream:
    """What `stream` returns: an endless iterator of batches; a context manager that ends it."""

    def __init__(self, fetch: "_Fetch", step: int, ahead: int):
        self._fetch, self._step = fetch, step
        self._together = max(1, ahead // 2)  # batches of a task: to pass one on costs 50 us
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fnn.data.stream")
        self._ready: deque[Any] = deque()  # batches, and at the end what went wrong
        self._tasks: deque[Future] = deque()
        self._closed = False
        for _ in range(ahead // self._together):
            self._ask()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._ready:
            if not self._tasks:
                raise StopIteration
            try:
                self._ready.extend(self._tasks.popleft().result())
            except BaseException:  # an interrupt, while it waits
                self.close()
                raise
            self._ask()
        batch = self._ready.popleft()
        if isinstance(batch, _Failure):
            self.close()
            raise batch.error
        return batch

    def close(self) -> None:
        """End the thread, after the batch that it is at. No batch comes after that."""
        self._closed = True
        self._ready.clear()
        self._tasks.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _ask(self) -> None:
        self._tasks.append(self._pool.submit(self._fetch_some, self._step))
        self._step += self._together

    def _fetch_some(self, first: int) -> list[Any]:
        fetched: list[Any] = []
        for step in range(first, first + self._together):
            if self._closed:
                break
            try:
                fetched.append(self._fetch(step))
            except BaseException as error:
                return [*fetched, _Failure(error)]
        return fetched


class _Failure(NamedTuple):
    """What the thread raised where a batch was to be."""

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
    """The batches of the steps from `start_step` on, on the device, in the order of a run.

    They are, to the last bit, those that `run` and `fit` take in the compiled step from arrays that
    lie on the device: a loop of `make_step` over them repeats a run.

    Args:
      data: a pytree of arrays with the same first axis, such as a `Batch`: NumPy arrays, np.memmap,
        or what else has a shape and is indexed by rising rows, as the datasets of h5py are.
      key: the stream of the order, `run_keys(key).order`; it is not consumed.
      batch_size: of all hosts together, a multiple of `hosts`, at most the number of examples.
      start_step: counted from 0; any step costs the same.
      ahead: batches that are fetched before they are asked for, at least 1; half of them at once.
      hosts, host: how many share each batch, and which of them this is, from 0; each gets the
        `batch_size / hosts` rows that are its own, and all together, in their order, the batch.

    Returns: `Stream`, an endless iterator of pytrees like `data`, and a context manager. What goes
      wrong in its thread is raised by the `next` that would have had the batch, and ends it.
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
            f"stream: expected a host from 0 to hosts - 1 and a batch_size that the hosts share "
            f"evenly, got host {host} of {hosts} and batch_size {batch_size}"
        )
    if start_step < 0 or ahead < 1:
        raise ValueError(
            f"stream: expected start_step of at least 0 and ahead of at least 1, got {start_step} "
            f"and {ahead}"
        )
    share = batch_size // hosts
    own = slice(host * share, (host + 1) * share)
    return Stream(_Fetch(data, key, n, batch_size, own), start_step, ahead)


class _Pair(NamedTuple):
    x: Any
    y: Any


class Streamed(_Pair):
    """Examples that stay on the host, or on its disk, as the `train` of what `fit` takes.

    `fit` then gets its batches from a `stream`, and gives the bits that it gives for the same
    arrays on the device.

    Args:
      x, y: as the data of `stream`; also lists of numbers, which become arrays, tensors of PyTorch,
        and what has a length and rows but no shape, such as a column of Hugging Face datasets.

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
        """The batches of the steps from `start_step` on, fetched ahead by a thread."""
        return stream((self.x, self.y), key, batch_size, start_step)


class _Fetch:
    """The batch of a step: a function, but for the indices of the steps around the last one."""

    def __init__(self, data: Any, key: PRNGKey, n: int, batch_size: int, own: slice):
        self._data, self._own = data, own
        self._order = (key, n, batch_size, max(1, min(_BLOCK, n) // batch_size))
        self._block, self._indices = -1, np.empty((0, 0), np.int32)
        # These are settings of a thread: the one that fetches has to be told.
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
        return self._indices[i, self._own]


def _rows(array: Any, indices: Indices) -> np.ndarray:
    if isinstance(array, np.ndarray):  # np.memmap is one, but is slow as itself
        return np.asarray(array).take(indices, axis=0)
    # Rising and each once: near rows of a file are read together, and h5py takes no others.
    rising, place = np.unique(indices, return_inverse=True)
    return np.asarray(array[rising]).take(place, axis=0)


def _examples(data: Any) -> int:
    for path, leaf in zip(tree.paths(data), jax.tree.leaves(data), strict=True):
        where = f"stream: expected data{f'[{path!r}]' if path else ''}"
        expect_native(where, leaf)
        if isinstance(leaf, np.ndarray | jax.Array) or not hasattr(leaf, "shape"):
            expect_numbers(where, leaf)
    lengths = {leaf.shape[0] if leaf.shape else 0 for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"stream: expected arrays with the same number of examples, got {sorted(lengths)}; "
            "check the data"
        )
    return lengths.pop()
