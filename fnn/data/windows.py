"""A long sequence of tokens as examples for a language model."""

import numpy as np
from jaxtyping import Integer

from fnn.data._arrays import expect_numbers
from fnn.types import Batch


def windows(
    tokens: Integer[np.ndarray, " tokens"], length: int, *, stride: int | None = None
) -> Batch:
    """x: windows of a sequence; y: the same, one token later.

    Args:
      tokens: (n,) integers, such as `Characters.encode` gives. In a narrow dtype the windows take
        less memory: uint8 for up to 256 tokens.
      length: tokens of a window, at most n - 1.
      stride: from the start of one window to that of the next; `length` if None, so that each token
        is a target once at most. With 1 there are all windows that there can be.

    Returns: a Batch of views (windows, length) into `tokens`, in its dtype.
    Raises: ValueError for a sequence that is too short, and for numbers below 1.

    >>> x, y = windows(np.arange(7), 3)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    >>> windows(np.arange(7), 3, stride=1).x.shape
    (4, 3)
    """
    expect_numbers("windows: expected tokens", tokens)
    stride = length if stride is None else stride
    if length < 1 or stride < 1 or tokens.ndim != 1 or len(tokens) <= length:
        raise ValueError(
            "windows: expected tokens of shape (n,) with n > length >= 1 and a stride of at least "
            f"1, got {tokens.shape}, length {length} and stride {stride}; take a longer text or a "
            "shorter window"
        )
    longer = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[:: int(stride)]
    return Batch(longer[:, :-1], longer[:, 1:])
