"""The type of initializers, and the fans of a kernel of shape (in, out) or (*window, in, out)."""

import enum
import math
from collections.abc import Callable

from jaxtyping import Array, Float

Initializer = Callable[..., Float[Array, "..."]]  # (key, shape, dtype=float32) -> array
Shape = tuple[int, ...]


class Fan(enum.Enum):
    """The fan that divides the variance."""

    IN = "in"
    OUT = "out"
    AVERAGE = "average"


def fans(shape: Shape) -> tuple[int, int]:
    """Fan-in and fan-out of a kernel.

    Raises: ValueError for fewer than two axes.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        raise ValueError(
            f"initializers.fans: expected a kernel of shape (..., in, out), got {shape}; "
            "use zeros or normal for vectors"
        )
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window
