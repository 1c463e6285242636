"""Keys for several runs that follow from the key of one."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from fnn.keys import fold_name
from fnn.types import PRNGKey


def seed_keys(key: PRNGKey, n: int) -> Key[Array, " n"]:
    """The key itself, and n - 1 others.

    >>> key = jax.random.key(0)
    >>> keys = seed_keys(key, 3)
    >>> keys.shape, bool(keys[0] == key), bool(keys[1] == keys[2])
    ((3,), True, False)
    """
    others = fold_name(key, "other seeds")
    members = [key, *(jax.random.fold_in(others, i) for i in range(1, n))]
    # By their bits: to stack keys is to use them, and the run of `key` is yet to come, or has been.
    bits = jnp.stack([jax.random.key_data(member) for member in members])
    return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(key))
