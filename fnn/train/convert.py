"""Examples of other libraries as NumPy arrays: tensors, and plain lists of numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def arrays(values: PyTree) -> PyTree:
    """Tensors (of PyTorch, TensorFlow) and lists of numbers as NumPy arrays; JAX's stay.

    Raises: ValueError for lists of unequal length, and for what is no number, such as text.

    >>> arrays({'a': [[1, 2], [3, 4]], 'b': jnp.zeros(2)})['a'].shape
    (2, 2)
    """
    return jax.tree.map(_array, values, is_leaf=is_plain_list)


def is_plain_list(value: Any) -> bool:
    """Whether `value` is a list of numbers or of such lists: data, and not a pytree of arrays.

    >>> is_plain_list([[1, 2], [3, 4]]), is_plain_list([np.ones(2), np.ones(2)])
    (True, False)
    """
    return isinstance(value, list) and not any(
        hasattr(leaf, "shape") for leaf in jax.tree.leaves(value)
    )


def _array(leaf: Any) -> Any:
    if isinstance(leaf, (jax.Array, np.ndarray)):
        return leaf
    try:
        array = _of_torch(leaf) if hasattr(leaf, "detach") else np.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"expected arrays, tensors or lists of numbers, got {type(leaf).__name__} ({error}); "
            "pad rows to one length"
        ) from error
    if array.dtype.kind in "OSU":
        raise ValueError(
            f"expected arrays, tensors or lists of numbers, got {type(leaf).__name__} of "
            f"{array.dtype.name}; encode text and labels as numbers first"
        )
    return array


def _of_torch(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":  # which NumPy itself does not have
        return np.asarray(tensor.float()).astype(jnp.bfloat16)
    return np.asarray(tensor)
