"""Checks of arrays that users pass, with the conversion of what NumPy would misread."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn._messages import ARRAYS, foreign, is_key, refuse


def expect_numbers(where: str, x: Any, name: str = "x") -> Any:
    """Returns `x`, an array of numbers of NumPy or JAX or a tracer, and refuses anything else.

    >>> expect_numbers('here', [1.0])
    Traceback (most recent call last):
        ...
    ValueError: here: expected x to be an array of numbers, got [1.0]; convert it: np.asarray(x)
    """
    if hint := _hint(x):
        refuse(where, f"{name} to be an array of numbers", x, hint)
    return x


def expect_native(where: str, x: Any, name: str = "x") -> None:
    """Refuses masked arrays, and the tensors and frames of other libraries."""
    if is_masked(x) or any(hasattr(x, method) for method in ("to_numpy", "detach", "toarray")):
        expect_numbers(where, x, name)


def expect_labels(where: str, labels: Any, name: str = "labels") -> np.ndarray:
    """Labels (n,) of one sortable kind, none missing, as a NumPy array."""
    if hasattr(labels, "columns") or is_masked(labels) or isinstance(labels, str | bytes):
        refuse(where, f"{name} of shape (n,)", labels, "give an array of them")
    array = np.asarray(labels)
    if array.ndim != 1:
        refuse(where, f"{name} of shape (n,)", labels, "give one for each example")
    missing = np.flatnonzero(_missing(array))
    if len(missing):
        raise ValueError(
            f"{where}: expected {name} for every example, got {len(missing)} that are missing, the "
            f"first at {missing[0]}; drop these examples or give them a label of their own"
        )
    kinds = {type(label).__name__ for label in array} if array.dtype.kind == "O" else set()
    if len(kinds) > 1:
        raise ValueError(
            f"{where}: expected {name} of one kind, got {sorted(kinds)}; give np.asarray({name}, "
            "str)"
        )
    return array


def expect_text(where: str, text: Any) -> str:
    """Returns `text`, a str that UTF-8 can encode."""
    if not isinstance(text, str):
        refuse(where, "a text", text, "give one str: '\\n'.join(texts) for several")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: expected a text of whole characters, got {error}; read the file with "
            "encoding='utf-8', errors='strict'"
        ) from error
    return text


def expect_tokens(where: str, tokens: Any, vocabulary: int) -> np.ndarray:
    """Tokens (n,) in [0, vocabulary), as int64."""
    array = np.asarray(tokens)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        hint = "decode one sequence at a time"
        refuse(where, "tokens, integers of shape (n,)", array, hint)
    wrong = array[(array < 0) | (array >= vocabulary)]
    if len(wrong):
        raise ValueError(f"{where}: expected tokens in [0, {vocabulary}), got {wrong[0]}")
    return array.astype(np.int64)


def is_masked(x: Any) -> bool:
    """Whether x is an array with a mask, which most functions of NumPy would drop."""
    return isinstance(x, np.ma.MaskedArray)


def _missing(array: np.ndarray) -> np.ndarray:
    """Where entries are NaN, None, NaT or the missing value of pandas."""
    if array.dtype.kind != "O":
        return array != array
    return np.array(
        [x is None or type(x).__name__ == "NAType" or bool(np.any(x != x)) for x in array], bool
    )


def _hint(x: Any) -> str:
    """The conversion of x to an array of numbers; '' if it is one."""
    if isinstance(x, jax.Array):
        return "give an array of numbers; a key is its own argument" if is_key(x) else ""
    if is_masked(x):
        return "give x.filled(np.nan), in which masked entries are missing"
    if isinstance(x, np.ndarray | np.generic):
        return _dtype_hint(x.dtype)
    if hasattr(x, "toarray"):  # scipy.sparse
        return "give x.toarray()"
    if foreign(x) not in ARRAYS and hasattr(x, "columns"):
        return "give fit_encoder(table).apply(table)"
    return ARRAYS.get(foreign(x), "convert it: np.asarray(x)")


def _dtype_hint(dtype: np.dtype) -> str:
    if jnp.issubdtype(dtype, np.number) or dtype == np.bool_:
        return ""
    if dtype.kind in "UST":
        return "encode it: np.unique(x, return_inverse=True)[1]"
    if dtype.kind in "mM":
        return "give (x - x[0]) / np.timedelta64(1, 's'), or another unit of time"
    return (
        "give x.astype(np.float32), np.stack(x) of arrays of one shape, or "
        "np.unique(x, return_inverse=True)[1] of strings"
    )
