"""Logits that are computed where they are read, so that training need not hold them all."""

import math
from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Float

from fnn.dtypes import at_least_float32
from fnn.xla import is_symbolic, rows_times


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True, eq=False)
class LazyLogits:
    """The logits x W + b, of a language model's head in training; a pytree of x, W and b.

    `losses.cross_entropy` takes them in chunks of rows, in at least float32, if they need more than
    64 MiB. Everything else that reads them, a loss or metric of your own, gets all of them: they
    act as the array, in every function of `jax.numpy`, operator and method.

    >>> logits = LazyLogits(x=jnp.ones((1, 2)), kernel=jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> logits.shape, logits.array().tolist(), (logits + 1).tolist(), logits.argmax().item()
    ((1, 2), [[4.0, 6.0]], [[5.0, 7.0]], 1)
    """

    x: Float[Array, "*batch features"]
    kernel: Float[Array, "features classes"]
    bias: Float[Array, " classes"] | None = None

    def array(self) -> Float[Array, "*batch classes"]:
        """All the logits, in the dtype of x."""
        z = rows_times(self.x, self.kernel)
        if self.bias is None:
            return z
        wide = at_least_float32(z)
        bias = self.bias.astype(wide).reshape((1,) * (z.ndim - 1) + (-1,))
        return (z.astype(wide) + bias).astype(z.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """(*batch, classes)."""
        return (*self.x.shape[:-1], self.kernel.shape[-1])

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """That of x."""
        return self.x.dtype

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(jax.Array, name):
            raise AttributeError(f"LazyLogits has no attribute {name!r}; nor has an array")
        return getattr(self.array(), name)

    def __jax_array__(self) -> Array:
        return self.array()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.array().__array__(*args, **kwargs)


def _delegate(name: str) -> None:
    def method(self: LazyLogits, *args: Any) -> Any:
        return getattr(self.array(), name)(*args)

    setattr(LazyLogits, name, method)


for _name in (
    "add radd sub rsub mul rmul truediv rtruediv floordiv mod pow rpow matmul rmatmul "
    "neg pos abs eq ne lt le gt ge getitem len iter"
).split():
    _delegate(f"__{_name}__")


def as_logits(logits: Array | LazyLogits) -> Array:
    """The array of logits of either kind.

    >>> as_logits(jnp.zeros(3)).shape
    (3,)
    """
    return logits.array() if isinstance(logits, LazyLogits) else logits


def is_large(logits: LazyLogits) -> bool:
    """Whether all the logits in float32 take more than 64 MiB, or an unknown number of bytes.

    >>> is_large(LazyLogits(x=jnp.ones((4, 2)), kernel=jnp.ones((2, 3))))
    False
    """
    return any(map(is_symbolic, logits.shape)) or 4 * math.prod(logits.shape) > 2**26
