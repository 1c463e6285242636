"""Numbers for the tests of activations and losses, ordinary ones and drawn by hypothesis."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fnn.types import Weighted

drawn = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)


def products(found):
    """Losses times their weights, where they have any."""
    return found.values * found.weights if isinstance(found, Weighted) else found


def ordinary(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numbers(*shape: int, size: float = 20.0, seed: int = 0) -> st.SearchStrategy:
    """Arrays of float32 numbers in +-size, of which the first row is an ordinary one.

    That row keeps the largest output at about 1. Without it, hypothesis draws arrays where every
    output underflows or cancels, and a share of the largest entry means nothing.
    """
    elements = st.floats(-size, size, width=32, allow_subnormal=False)
    row = ordinary(1, *shape[1:], seed=seed)
    rest = arrays(np.float32, (shape[0] - 1, *shape[1:]), elements=elements)
    return rest.map(lambda rows: np.concatenate([row, rows]))


def integers(*shape: int, below: int, start: int = 0) -> st.SearchStrategy:
    """Arrays of int32 in [start, below)."""
    return arrays(np.int32, shape, elements=st.integers(start, below - 1))


def probabilities(*shape: int) -> st.SearchStrategy:
    """Arrays of float32 whose rows sum to 1; no entry is 0."""

    def normalize(logits):
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (p / p.sum(axis=-1, keepdims=True)).astype(np.float32)

    return numbers(*shape, size=5.0, seed=9).map(normalize)
