"""Windows of a token sequence, as examples for a language model."""

import numpy as np
from jaxtyping import Integer

from fnn.data._arrays import expect_numbers
from fnn.types import Batch


def windows(
    tokens: Integer[np.ndarray, " tokens"], length: int, *, stride: int | None = None
) -> Batch:
    """Windows x of a sequence, and their next tokens y.

    Args:
      tokens: integers (n,), such as `Characters.encode` returns. A narrow dtype saves memory: uint8
        holds a vocabulary of 256.
      length: tokens of a window, at most n - 1.
      stride: distance of the starts of two windows; `length` if None, so that each token is a
        target at most once. 1 gives all possible windows.

    Returns: a Batch of views (windows, length) of `tokens`.
    Raises: ValueError for a sequence that is too short, and for a length or stride below 1.

    >>> x, y = windows(np.arange(7), 3)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    >>> windows(np.arange(7), 3, stride=1).x.shape
    (4, 3)
    """
    expect_numbers("windows", tokens, "tokens")
    stride = length if stride is None else stride
    if length < 1 or stride < 1 or tokens.ndim != 1 or len(tokens) <= length:
        raise ValueError(
            "windows: expected tokens of shape (n,) with n > length >= 1 and a stride of at least "
            f"1, got {tokens.shape}, length {length} and stride {stride}; take a longer text or a "
            "shorter window"
        )
    both = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[:: int(stride)]
    return Batch(both[:, :-1], both[:, 1:])
