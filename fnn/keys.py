"""Random keys by name: streams that do not depend on the order of their creation."""

import zlib
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.expect import is_zero
from fnn.types import PRNGKey, Scalar


def fold_name(key: PRNGKey, name: str) -> PRNGKey:
    """The key for `name` derived from `key`, which is not consumed.

    New names leave the keys of other names unchanged.

    >>> key = jax.random.key(0)
    >>> [bool(fold_name(key, 'kernel') == fold_name(key, name)) for name in ('kernel', 'bias')]
    [True, False]
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def fold_name_or_none(key: PRNGKey | None, name: str) -> PRNGKey | None:
    """`fold_name`, and None for None: outside of training a model has no key.

    >>> fold_name_or_none(None, 'weights') is None
    True
    """
    return None if key is None else fold_name(key, name)


class RunKeys(NamedTuple):
    """The three keys of a run, derived from its base key."""

    init: PRNGKey  # parameters
    order: PRNGKey  # order of the examples
    noise: PRNGKey  # dropout, augmentation; a step uses fold_in(noise, step)


def run_keys(key: PRNGKey) -> RunKeys:
    """The keys that `run` and `fit` derive from their base key.

    They reproduce a run step by step, bitwise.

    >>> run_keys(jax.random.key(0)).order.shape
    ()
    """
    return RunKeys(*(fold_name(key, name) for name in RunKeys._fields))


def key_of_noise(where: str, amount: Scalar, key: PRNGKey | None, train: bool) -> PRNGKey | None:
    """The key for a layer's noise; None outside of training and for an amount of a Python 0.

    Raises: ValueError, which begins with `where`, if the key is missing.

    >>> key_of_noise('dropout', 0.5, None, False) is key_of_noise('dropout', 0.0, None, True)
    True
    >>> key_of_noise('dropout', 0.5, None, True)
    Traceback (most recent call last):
        ...
    ValueError: dropout: expected a key with train=True, got None; pass key= to the model's apply
    """
    if not train or is_zero(amount):
        return None
    if key is None:
        raise ValueError(
            f"{where}: expected a key with train=True, got None; pass key= to the model's apply"
        )
    return key


def draw_normal(key: PRNGKey, shape: tuple[Any, ...], dtype: Any) -> Float[Array, "..."]:
    """Standard normal samples, drawn in at least float32 and rounded to `dtype`.

    Drawn in bfloat16, from 128 uniform values, no sample would exceed 3.

    >>> draw_normal(jax.random.key(0), (2,), jnp.bfloat16).dtype.name
    'bfloat16'
    """
    return jax.random.normal(key, shape, at_least_float32(dtype)).astype(dtype)
