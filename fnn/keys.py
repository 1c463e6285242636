"""Random keys by name: streams that do not depend on the order in which they are made."""

import zlib
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.types import PRNGKey, Scalar


def fold_name(key: PRNGKey, name: str) -> PRNGKey:
    """The stream of `key` that belongs to `name`.

    Adding another name changes no stream that exists. The key itself is not consumed.

    >>> key = jax.random.key(0)
    >>> bool(fold_name(key, 'kernel') == fold_name(key, 'kernel'))
    True
    >>> bool(fold_name(key, 'kernel') == fold_name(key, 'bias'))
    False
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def fold_name_or_none(key: PRNGKey | None, name: str) -> PRNGKey | None:
    """`fold_name`, where there is a key: outside of training a model is given None.

    >>> fold_name_or_none(None, 'weights') is None
    True
    """
    return None if key is None else fold_name(key, name)


class RunKeys(NamedTuple):
    """The three streams of a run, all derived from its one base key."""

    init: PRNGKey  # parameters
    order: PRNGKey  # which examples a step sees
    noise: PRNGKey  # dropout and the like; a step uses fold_in(noise, step)


def run_keys(key: PRNGKey) -> RunKeys:
    """The streams that `run` and `fit` use for the base key `key`.

    With them a run can be repeated by hand, one `step` at a time, to the last bit.

    >>> run_keys(jax.random.key(0)).order.shape
    ()
    """
    return RunKeys(*(fold_name(key, name) for name in RunKeys._fields))


def key_of_noise(where: str, amount: Scalar, key: PRNGKey | None, train: bool) -> PRNGKey | None:
    """The key that a layer draws its noise from; None where it adds none.

    That is outside of training, and for an amount that is a plain 0 (a traced 0 cannot be seen).

    Raises: ValueError, which begins with `where`, if there is to be noise and the key is None.

    >>> key_of_noise('dropout', 0.5, None, False) is key_of_noise('dropout', 0.0, None, True)
    True
    >>> key_of_noise('dropout', 0.5, None, True)
    Traceback (most recent call last):
        ...
    ValueError: dropout: expected a key with train=True, got None; pass key= to the model's apply
    """
    if not train or (isinstance(amount, (int, float)) and amount == 0):
        return None
    if key is None:
        raise ValueError(
            f"{where}: expected a key with train=True, got None; pass key= to the model's apply"
        )
    return key


def draw_normal(key: PRNGKey, shape: tuple[Any, ...], dtype: Any) -> Float[Array, "..."]:
    """Standard normal, drawn in at least float32 and rounded to `dtype`.

    A draw in bfloat16 has the tails of 128 uniform numbers: none is beyond 3.

    >>> draw_normal(jax.random.key(0), (2,), jnp.bfloat16).dtype.name
    'bfloat16'
    """
    return jax.random.normal(key, shape, at_least_float32(dtype)).astype(dtype)
