"""Small leaves side by side in one vector: an array that crosses jit costs microseconds.

An optimizer's state has two or three leaves for each parameter, and most leaves of most models are
biases and scales. Between steps they lie packed; inside the step they are slices again.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

_SMALL = 4096  # elements; a larger leaf costs more to copy than to pass

Packed = dict[str, Any]  # {'small': {dtype: vector}, 'large': [the other leaves, in order]}


def pack(tree: PyTree) -> Packed:
    """The leaves of `tree`, the small ones of each dtype as one vector.

    >>> packed = pack({'a': jnp.array(1.0), 'b': jnp.array([2.0, 3.0]), 'c': jnp.zeros(5000)})
    >>> packed['small']['float32'].tolist(), len(packed['large'])
    ([1.0, 2.0, 3.0], 1)
    """
    small: dict[str, list[Array]] = {}
    large = []
    for leaf in map(jnp.asarray, jax.tree.leaves(tree)):
        if _is_small(leaf):
            small.setdefault(leaf.dtype.name, []).append(leaf.ravel())
        else:
            large.append(leaf)
    return {
        "small": {name: jnp.concatenate(parts) for name, parts in small.items()},
        "large": large,
    }


def unpack(packed: Packed, like: PyTree) -> PyTree:
    """The tree that was packed, in the structure and shapes of `like`.

    >>> tree = {'a': jnp.array(1.0), 'b': jnp.array([2, 3])}
    >>> unpack(pack(tree), tree)['b'].tolist()
    [2, 3]
    """
    used = dict.fromkeys(packed["small"], 0)
    large = iter(packed["large"])
    leaves = []
    for leaf in jax.tree.leaves(like):
        if _is_small(leaf):
            name, size = leaf.dtype.name, math.prod(leaf.shape)
            part = packed["small"][name][used[name] : used[name] + size]
            leaves.append(part.reshape(leaf.shape))
            used[name] += size
        else:
            leaves.append(next(large))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _is_small(leaf: Any) -> bool:
    number = not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)  # keys have no vectors
    return number and math.prod(leaf.shape) <= _SMALL
