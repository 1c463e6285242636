"""Batches from the host: sources that know an order, and the user's iterables of batches."""

import base64
import contextlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from fnn import tree
from fnn.expect import expect_alike
from fnn.order import order_block
from fnn.types import Batch, Pair, PRNGKey


@runtime_checkable
class Source(Protocol):
    """A pair (x, y) that also returns batches, such as `fnn.data.Streamed`.

    The leaves of the pair have a shape, with the number of examples first, and can be sliced.
    """

    def batches(
        self, key: PRNGKey, batch_size: int, start_step: int
    ) -> AbstractContextManager[Iterator[Any]]:
        """The batches of the steps from `start_step` on, in the order of `fnn.order`."""
        ...


def first_batch(train: Pair, key: PRNGKey, batch_size: int) -> Pair:
    """The batch of the first step of a run; `key` is that of the order."""
    if isinstance(train, Source):
        with train.batches(key, batch_size, 0) as batches:
            return tuple(next(batches))
    indices = upcoming(key, 0, tree.length(train), batch_size, 1)[0]
    return jax.tree.map(lambda a: jnp.asarray(a)[indices], tuple(train))


def upcoming(
    key: PRNGKey, step: int, n: int, batch_size: int, steps: int
) -> Int[np.ndarray, "steps batch"]:
    """`order_block` of n examples as a NumPy array, compiled once for all steps and keys.

    It runs on the CPU where JAX has one: an accelerator would queue it behind the training steps.
    """
    words, impl = np.asarray(jax.random.key_data(key)), jax.random.key_impl(key)
    with jax.default_device(_cpu()):
        return np.asarray(_order(words, impl, np.int32(step), n, batch_size, steps))


@jax.jit
def placed(batch: PyTree) -> PyTree:
    """NumPy arrays on the device, with less overhead than `jax.device_put`."""
    return batch


def _cpu() -> jax.Device | None:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # not in JAX_PLATFORMS
        return None


@partial(jax.jit, static_argnums=(1, 3, 4, 5))
def _order(words: Array, impl: Any, step: Array, n: int, batch_size: int, steps: int) -> Array:
    return order_block(jax.random.wrap_key_data(words, impl=impl), step, n, batch_size, steps)


def is_iterable(train: Any) -> bool:
    """Whether `train` iterates over batches, and is not a pair of arrays.

    >>> is_iterable((1, 2)), is_iterable(iter([])), is_iterable([(1, 2), (1, 2)])
    (False, True, True)
    """
    if isinstance(train, list):  # of pairs; a list of two arrays is not
        return all(isinstance(batch, (tuple, list, Mapping)) for batch in train)
    no = (tuple, Mapping, str, bytes, np.ndarray, jax.Array)
    return isinstance(train, Iterable) and not isinstance(train, no)


class Loader(Batch):
    """The first batch of an iterable, and as a `Source` all of its batches, in its own order."""

    feed: "Feed"

    def __new__(cls, x: Any, y: Any, feed: Any = None) -> "Loader":  # x, y: JAX rebuilds it so
        loader = super().__new__(cls, x, y)
        loader.feed = feed
        return loader

    def batches(
        self, key: PRNGKey, batch_size: int, start_step: int
    ) -> AbstractContextManager[Iterator[Any]]:
        """The remaining batches, for the steps from `start_step` on."""
        return nullcontext(self.feed)

    def expect_position(self) -> None:
        """Warns, before any training, of an iterable without a position: no resume is possible.

        Raises: ValueError for a position that is not JSON.
        """
        where = self.feed.position()
        if where is None:
            warnings.warn(
                f"fit: data.train ({self.feed.name}) does not say its position (by get_state and "
                "set_state), so this run cannot be resumed from its store",
                stacklevel=4,
            )
        try:
            json.dumps(where)
        except TypeError as error:
            raise ValueError(
                f"fit: expected a position of data.train that is JSON or bytes, got {where!r}; "
                "return such from get_state or state_dict"
            ) from error


def position(train: Any) -> Any:
    """Position of a `Loader`, as JSON; None for other data, or where it is unknown."""
    return train.feed.position() if isinstance(train, Loader) else None


def open_loader(batches: Iterable[Any], batch_size: int, steps: int) -> Loader:
    """A Loader over an iterable of pairs (x, y), whose first batch it reads."""
    with contextlib.suppress(TypeError):  # it has no length, or does not know it
        if (n := len(batches)) < steps:  # type: ignore[arg-type]
            raise ValueError(_too_few(batches, steps, n))
    feed = Feed(batches, steps)
    examples = tree.length(feed.first)
    if examples != batch_size:
        raise ValueError(
            f"batch_size: expected that of the batches of data.train, {examples}, got {batch_size}"
            f"; pass batch_size={examples}"
        )
    return Loader(*feed.first, feed)


class Feed:
    """An iterator over the batches of an iterable, which checks and converts them."""

    def __init__(self, batches: Iterable[Any], steps: int) -> None:
        self._given, self._iterator, self._steps = batches, iter(batches), steps
        self._step = 0  # of the batch that is read next
        self.first = self._read()
        self._ahead = [self.first]

    @property
    def name(self) -> str:
        """The type of the iterable."""
        return type(self._given).__name__

    def __iter__(self) -> Iterator[Pair]:
        return self

    def __next__(self) -> Pair:
        return self._ahead.pop() if self._ahead else self._read()

    def position(self) -> Any:
        """Position of the iterable, as JSON; None if it has no such method."""
        methods = self._methods()
        if methods is None:
            return None
        position = methods[0]()
        if isinstance(position, bytes):
            return {"base64": base64.b64encode(position).decode()}
        return position

    def seek(self, position: Any, step: int) -> None:
        """Sets the position, that of the batch of `step`; raises if the iterable cannot."""
        methods = self._methods()
        if methods is None or position is None:
            raise ValueError(
                f"fit: expected a data.train that says its position, to resume at step {step}, got "
                f"{self.name}; use arrays or fnn.data.Streamed, or an iterator "
                "with get_state and set_state (or state_dict and load_state_dict)"
            )
        if isinstance(position, Mapping) and position.keys() == {"base64"}:
            position = base64.b64decode(position["base64"])
        methods[1](position)
        if not _methods_of(self._iterator):
            self._iterator = iter(self._given)
        self._step, self._ahead = step, []

    def _methods(self) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
        return _methods_of(self._iterator) or _methods_of(self._given)

    def _read(self) -> Pair:
        try:
            batch = next(self._iterator)
        except StopIteration:
            raise ValueError(_too_few(self._given, self._steps, self._step)) from None
        where = f"data.train: the batch of step {self._step}"
        pair = _pair(where, batch)
        if self._step and hasattr(self, "first") and _specs(pair) != _specs(self.first):
            _expect_like_first(where, self.first, pair)
        self._step += 1
        return pair


def _methods_of(thing: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    for get, put in (("get_state", "set_state"), ("state_dict", "load_state_dict")):
        if hasattr(thing, get) and hasattr(thing, put):
            return getattr(thing, get), getattr(thing, put)
    return None


def _too_few(batches: Any, steps: int, n: int) -> str:
    return (
        f"data.train: expected a batch for each of {steps} steps, got {n} batches from "
        f"{type(batches).__name__}; train for fewer steps, or pass fnn.data.repeat(...) of what "
        "can be read again, such as a DataLoader"
    )


def _pair(where: str, batch: Any) -> Batch:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        keys = f" with {sorted(batch)}" if isinstance(batch, Mapping) else ""
        raise ValueError(
            f"{where}: expected a pair (x, y), got {type(batch).__name__}{keys}; map them first: "
            "((batch['x'], batch['y']) for batch in loader)"
        )
    try:
        return Batch(*map(arrays, batch))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _specs(pair: Pair) -> list[Any]:
    return [jax.tree.structure(pair), *((a.shape, a.dtype) for a in jax.tree.leaves(pair))]


def _expect_like_first(where: str, first: Pair, pair: Pair) -> None:
    try:
        expect_alike(f"{where} and the first one", first, pair, dtypes=True)
    except ValueError as error:
        raise ValueError(
            f"{error}\nmake all batches alike; a DataLoader drops a smaller last one with "
            "drop_last=True"
        ) from None


def arrays(values: PyTree) -> PyTree:
    """Tensors (PyTorch, TensorFlow) and lists of numbers as NumPy arrays; JAX's are unchanged.

    Raises: ValueError for lists of unequal lengths, and for leaves that are not numbers.
    """
    return jax.tree.map(_array, values, is_leaf=is_plain_list)


def is_plain_list(value: Any) -> bool:
    """Whether `value` is a list of numbers or of such lists: data, and not a pytree of arrays.

    >>> is_plain_list([[1, 2], [3, 4]]), is_plain_list([np.ones(2), np.ones(2)])
    (True, False)
    """
    return isinstance(value, list) and not any(
        hasattr(leaf, "shape") for leaf in jax.tree.leaves(value)
    )


def _array(leaf: Any) -> Any:
    if isinstance(leaf, (jax.Array, np.ndarray)):
        return leaf
    try:
        array = _of_torch(leaf) if hasattr(leaf, "detach") else np.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected arrays, tensors or lists of numbers, got {type(leaf).__name__} ({error}); "
            "pad rows to one length"
        ) from error
    if array.dtype.kind in "OSU":
        raise ValueError(
            f"expected arrays, tensors or lists of numbers, got {type(leaf).__name__} of "
            f"{array.dtype.name}; encode text and labels as numbers first"
        )
    return array


def _of_torch(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy itself does not have
        return np.asarray(tensor.float()).astype(jnp.bfloat16)
    return np.asarray(tensor)
