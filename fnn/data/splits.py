"""Which examples train, and which are kept back."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from fnn.types import PRNGKey

Indices = Int[np.ndarray, " _"]


def split(key: PRNGKey, n: int, shares: Sequence[float]) -> list[Indices]:
    """Indices of n examples, shuffled and dealt into parts.

    Part i ends at n (shares[0] + ... + shares[i]), rounded, so the parts hold every example exactly
    once, and each is less than one example off its share.

    Args:
      key: typed key; it is consumed.
      n: number of examples.
      shares: of each part, above 0, with a sum of 1.

    Returns: for each share an int array of shape (part,).
    Raises: ValueError for shares that do not add up to 1, and for a part that would be empty.

    >>> train, valid, test = split(jax.random.key(0), 10, (0.6, 0.2, 0.2))
    >>> len(train), len(valid), len(test)
    (6, 2, 2)
    >>> sorted(np.concatenate([train, valid, test]).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    if not all(share > 0 for share in shares) or not math.isclose(math.fsum(shares), 1):
        raise ValueError(
            f"split: expected shares above 0 with a sum of 1, got {tuple(shares)}; "
            "give one share for each part, e.g. (0.7, 0.15, 0.15)"
        )
    # Not round(), which sends 7.5 and 8.5 to the same 8.
    ends = [math.floor(n * math.fsum(shares[: i + 1]) + 0.5) for i in range(len(shares))]
    sizes = np.diff([0, *ends])
    if (sizes == 0).any():
        raise ValueError(
            f"split: expected enough examples for {len(shares)} parts, got {n}, which gives parts "
            f"of {sizes.tolist()}; use more data or larger shares"
        )
    return np.split(np.asarray(jax.random.permutation(key, n)), ends[:-1])
