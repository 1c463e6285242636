"""Small leaves side by side in a few vectors: an array that crosses jit costs microseconds.

An optimizer's state has two or three leaves for each parameter, and most leaves of most models are
biases and scales. Between steps they lie packed; inside the step they are slices again.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from fnn.tree import SMALL, is_small, ravel, unravel

Packed = dict[str, list[Array]]  # {'small': vectors, 'large': the other leaves, in order}


def pack(tree: PyTree, params: PyTree) -> Packed:
    """The leaves of `tree`, the small ones of each dtype as one vector.

    Parts of it that are like the parameters have vectors of their own, unless these would be small
    themselves: an update of such a moment is one vector, which can take the place of the old one.

    >>> packed = pack({'a': jnp.array(1.0), 'b': jnp.array([2.0, 3.0]), 'c': jnp.zeros(5000)}, ())
    >>> packed['small'][0].tolist(), len(packed['large'])
    ([1.0, 2.0, 3.0], 1)
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    vectors = _vectors(tree, params)
    return {
        "small": [ravel([leaves[i] for i in places]) for places in vectors],
        "large": [leaf for leaf in leaves if not is_small(leaf)],
    }


def unpack(packed: Packed, like: PyTree, params: PyTree) -> PyTree:
    """The tree that was packed, in the structure and shapes of `like`.

    >>> tree = {'a': jnp.array(1.0), 'b': jnp.array([2, 3])}
    >>> unpack(pack(tree, ()), tree, ())['b'].tolist()
    [2, 3]
    """
    shapes, structure = jax.tree.flatten(like)
    vectors = _vectors(like, params)
    small: dict[int, Array] = {}
    for vector, places in zip(packed["small"], vectors, strict=True):
        small.update(zip(places, unravel(vector, [shapes[i] for i in places]), strict=True))
    large = iter(packed["large"])
    leaves = [small[i] if i in small else next(large) for i in range(len(shapes))]
    return jax.tree.unflatten(structure, leaves)


def _vectors(tree: PyTree, params: PyTree) -> list[list[int]]:
    """The places of the leaves that lie in each vector."""
    structure: Any = jax.tree.structure(params)
    parts = jax.tree.leaves(tree, is_leaf=lambda part: jax.tree.structure(part) == structure)
    vectors: dict[Any, list[int]] = {}
    place = 0
    for n, part in enumerate(parts, 1):
        leaves = jax.tree.leaves(part)
        alone = sum(leaf.size for leaf in leaves if is_small(leaf)) > SMALL
        for leaf in leaves:
            if is_small(leaf):
                vectors.setdefault((n if alone else 0, leaf.dtype), []).append(place)
            place += 1
    return list(vectors.values())
