"""The rows of a part as standardized numbers that distances and linear maps make sense of."""

import numpy as np

from fnn.data.audit.parts import Part

_CODE = 16  # numbers that stand for a category
_LONG_CODE = 64  # of more than 64 categories: two of 2^16 are too often alike
_LINEAR = 128  # more features than this are projected
_RANDOM = 128


def standardized(part: Part, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Features with mean 0 and variance 1, or 0 where they are constant; categories coded.

    Two different values of a category are about as far from each other, 1, as two numbers that
    are a standard deviation apart.

    >>> part = Part(name='train', rows=np.array([[1.0], [3.0]]), shape=(1,))
    >>> standardized(part, np.arange(2), np.random.default_rng(0)).tolist()
    [[-1.0], [1.0]]
    """
    plain = [i for i in range(part.rows.shape[1]) if i not in part.categorical]
    x = part.numbers(rows, plain) if part.categorical else part.numbers(rows)
    rounding = np.abs(x).max(axis=0, initial=0) * np.finfo(x.dtype).eps
    x = x - x.mean(axis=0)
    std = x.std(axis=0)
    x /= np.where(std > rounding, std, np.inf)
    codes = [_coded(part.rows[rows, i], rng) for i in sorted(part.categorical)]
    return np.concatenate([x, *codes], axis=1) if codes else x


def _coded(column: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random signs for each category: the squared distance of two codes is 1 on average."""
    values, inverse = np.unique(column, return_inverse=True)
    size = _CODE if len(values) <= 64 else _LONG_CODE
    signs = rng.integers(2, size=(len(values), size)) * 2.0 - 1
    return (signs / np.sqrt(2 * size))[inverse]


def design(part: Part, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a probe looks at: a column of ones, the features or a projection, and random features.

    >>> part = Part(name='train', rows=np.array([[1.0], [3.0]]), shape=(1,))
    >>> design(part, np.arange(2), np.random.default_rng(0)).shape
    (2, 130)
    """
    x = standardized(part, rows, rng).astype(np.float64)
    if x.shape[1] > _LINEAR:
        x = x @ rng.normal(size=(x.shape[1], _LINEAR)) / np.sqrt(x.shape[1])
    spread = np.sqrt(np.square(x).sum(axis=1).mean())
    directions = rng.normal(size=(x.shape[1], _RANDOM)) / (spread if spread > 0 else 1.0)
    bent = np.maximum(x @ directions + rng.normal(size=_RANDOM), 0)
    return np.concatenate([np.ones((len(x), 1)), x, bent - bent.mean(axis=0)], axis=1)
