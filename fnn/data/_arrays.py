"""What users give as arrays: what is no array of numbers is refused, with the conversion."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.advice import is_key, with_article


def expect_numbers(where: str, x: Any) -> Any:
    """`x`, if it is an array of numbers of NumPy or JAX; a tracer is one.

    Raises: ValueError, which begins with `where` and says how to convert it.

    >>> expect_numbers('here: expected x', [1.0])
    Traceback (most recent call last):
        ...
    ValueError: here: expected x to be an array of numbers, got a list; give np.asarray(x)
    """
    advice = _advice(x)
    if advice:
        raise ValueError(f"{where} to be an array of numbers, got {name_of(x)}; give {advice}")
    return x


def expect_labels(where: str, labels: Any) -> np.ndarray:
    """One label of any sortable kind for each example, as a NumPy array (n,).

    Raises: ValueError, which begins with `where`, for another shape, or a label that is missing.

    >>> expect_labels('here: expected labels', ['a', 'b']).tolist()
    ['a', 'b']
    """
    foreign = isinstance(labels, str | bytes) or hasattr(labels, "columns") or is_masked(labels)
    if foreign or not hasattr(labels, "__len__"):
        raise ValueError(f"{where} of shape (n,), got {name_of(labels)}; give an array of them")
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ValueError(
            f"{where} of shape (n,), got shape {array.shape}; give one label for each example"
        )
    missing = np.flatnonzero(_missing(array))
    if len(missing):
        raise ValueError(
            f"{where} for every example, got {len(missing)} that are missing, the first at "
            f"{missing[0]}; drop these examples or give them a label of their own"
        )
    kinds = {type(label).__name__ for label in array} if array.dtype.kind == "O" else set()
    if len(kinds) > 1:
        raise ValueError(f"{where} of one kind, got {sorted(kinds)}; give np.asarray(labels, str)")
    return array


def expect_native(where: str, x: Any) -> None:
    """Refuse what another library made, which NumPy would take as something else, or by luck.

    Raises: ValueError, which begins with `where` and says how to convert it.

    >>> expect_native('here: expected x', [1.0])
    """
    if is_masked(x) or any(hasattr(x, name) for name in ("to_numpy", "detach", "toarray")):
        expect_numbers(where, x)


def expect_text(where: str, text: Any) -> str:
    """`text`, if it is a str that UTF-8 can hold.

    Raises: ValueError, which begins with `where`.

    >>> expect_text('here: expected a text', ['a'])
    Traceback (most recent call last):
        ...
    ValueError: here: expected a text, got a list; give one str, '\\n'.join(texts) of several
    """
    if not isinstance(text, str):
        raise ValueError(
            f"{where}, got {name_of(text)}; give one str, '\\n'.join(texts) of several"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} of whole characters, got {error}; read the file with encoding='utf-8', "
            "errors='strict'"
        ) from error
    return text


def expect_tokens(where: str, tokens: Any, vocabulary: int) -> np.ndarray:
    """Tokens (n,) in [0, vocabulary), as int64.

    Raises: ValueError, which begins with `where`.

    >>> expect_tokens('here', [3], 2)
    Traceback (most recent call last):
        ...
    ValueError: here: expected tokens in [0, 2), got 3
    """
    array = np.asarray(tokens)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: expected tokens, integers of shape (n,), got {array.dtype} of shape "
            f"{array.shape}; decode one sequence at a time"
        )
    wrong = array[(array < 0) | (array >= vocabulary)]
    if len(wrong):
        raise ValueError(f"{where}: expected tokens in [0, {vocabulary}), got {wrong[0]}")
    return array.astype(np.int64)


def expect_key(where: str, key: Any) -> None:
    """Refuse what is not a single typed key.

    Raises: ValueError, which begins with `where`.

    >>> expect_key('here', 0)
    Traceback (most recent call last):
        ...
    ValueError: here: expected a typed key, got an int; make it with jax.random.key(seed)
    """
    if not is_key(key) or key.shape:
        raise ValueError(
            f"{where}: expected a typed key, got {name_of(key)}; make it with jax.random.key(seed)"
        )


def _missing(array: np.ndarray) -> np.ndarray:
    """NaN, None, NaT and the missing value of pandas, none of which compares as a value."""
    if array.dtype.kind == "O":
        return np.array(
            [
                one is None or type(one).__name__ == "NAType" or bool(np.any(one != one))
                for one in array
            ],
            bool,
        )
    return array != array


def _advice(x: Any) -> str:
    """How to make an array of numbers of x; '' if it is one."""
    if isinstance(x, jax.Array):
        return "an array of numbers; a key is an argument of its own" if is_key(x) else ""
    if is_masked(x):
        return "x.filled(np.nan), in which what is masked is missing"
    if isinstance(x, np.ndarray | np.generic):
        return _advice_of(x.dtype)
    if hasattr(x, "to_numpy"):  # pandas, polars
        return "x.to_numpy() of its columns of numbers, or fit_encoder(table).apply(table)"
    if hasattr(x, "detach"):  # torch
        return "np.asarray(x.detach().cpu())"
    if hasattr(x, "toarray"):  # scipy.sparse
        return "x.toarray()"
    if hasattr(x, "columns") and hasattr(x, "take"):
        return "fit_encoder(table).apply(table)"
    return "np.asarray(x)"


def _advice_of(dtype: np.dtype) -> str:
    if jnp.issubdtype(dtype, np.number) or dtype == np.bool_:
        return ""
    if dtype.kind in "UST":
        return "np.unique(x, return_inverse=True)[1], which numbers the strings"
    if dtype.kind in "mM":
        return "(x - x[0]) / np.timedelta64(1, 's'), or another unit of time"
    return (
        "x.astype(np.float32), np.stack(x) of arrays of one shape, or "
        "np.unique(x, return_inverse=True)[1] of strings"
    )


def is_masked(x: Any) -> bool:
    """Whether x is an array with a mask, which most functions of NumPy would drop.

    >>> is_masked(np.ma.masked_array([1, 2], [0, 1]))
    True
    """
    return isinstance(x, np.ma.MaskedArray)


def name_of(x: Any) -> str:
    """What x is, with its article.

    >>> name_of(np.array(['a'])), name_of([1])
    ('an array of strings', 'a list')
    """
    if isinstance(x, np.ndarray) and not is_masked(x):
        return f"an array of {'strings' if x.dtype.kind in 'UST' else x.dtype}"
    return with_article(type(x).__name__)
