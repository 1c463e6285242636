"""What the checks are given: models, examples or strategies, dtypes; errors that say what to do."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ADAPTERS = {
    "flax.linen": "fnn.interop.from_linen(module)",
    "flax.nnx": "fnn.interop.from_nnx(lambda rngs: module)",
    "equinox": "fnn.interop.from_equinox(lambda key: module)",
    "haiku": "fnn.interop.from_haiku(function)",
    "optax": "fnn.interop.from_optax(transform)",
    "torch": "a function of parameters written in JAX",
}


def given(where: str, x: Any, seed: int = 0) -> Any:
    """The example of a strategy of `fnn.testing.strategies`, or the value itself."""
    if hasattr(x, "typical"):
        return x.typical(seed)
    if hasattr(x, "do_draw") or type(x).__module__.startswith("hypothesis"):
        raise ValueError(
            f"{where}: expected arrays or a strategy of fnn.testing.strategies, got {x!r}; draw an "
            "example of it first"
        )
    for leaf in jax.tree.leaves(x):
        if not hasattr(leaf, "dtype") and not np.isscalar(leaf):
            raise ValueError(
                f"{where}: expected arrays, got {type(leaf).__name__}; use jnp.asarray"
            )
    return _as_array(x) if _is_nested_numbers(x) else x


def _is_nested_numbers(x: Any) -> bool:
    """Whether x is a list of numbers, which stands for an array."""
    return type(x) is list and bool(x) and all(not hasattr(v, "dtype") for v in jax.tree.leaves(x))


def _as_array(x: Any) -> Any:
    return jnp.asarray(np.asarray(x).astype(np.float32))


def expect_model(where: str, thing: Any) -> None:
    """Checks for a pair of init and apply. Raises: ValueError that names the adapter."""
    if _is_pair(thing, "init", "apply"):
        return
    raise ValueError(
        f"{where}: expected a Model, got {_described(thing)}; {_advice(thing, 'Model')}"
    )


def expect_optimizer(where: str, thing: Any) -> None:
    """Checks that `thing` is a pair of init and update."""
    if _is_pair(thing, "init", "update"):
        return
    raise ValueError(
        f"{where}: expected an Optimizer, got {_described(thing)}; {_advice(thing, 'Optimizer')}"
    )


def _is_pair(thing: Any, *names: str) -> bool:
    return adapter_of(thing) is None and all(callable(getattr(thing, n, None)) for n in names)


def adapter_of(thing: Any) -> str | None:
    """The call that adapts a thing of another library, by the modules of its classes."""
    kind = thing if isinstance(thing, type) else type(thing)
    for base in kind.__mro__:
        for module, adapter in ADAPTERS.items():
            if base.__module__ == module or base.__module__.startswith(module + "."):
                return adapter
    return None


def _described(thing: Any) -> str:
    kind = thing if isinstance(thing, type) else type(thing)
    if kind.__name__ == "function":
        return f"the function {thing.__name__}"
    prefix = "the class " if isinstance(thing, type) else ""
    return f"{prefix}{kind.__module__.split('.')[0]}'s {kind.__name__}"


def _advice(thing: Any, kind: str) -> str:
    adapter = adapter_of(thing)
    if adapter is not None:
        return f"wrap it: {adapter}"
    if kind == "Model" and callable(thing):
        return "call it if it makes a model, or lift a function of x by fnn.nn.lift"
    if callable(thing):
        return f"pass a function that makes the {kind}, or the {kind} itself"
    return f"pass a fnn.types.{kind}"


def dtypes_beyond_float32(where: str, dtypes: Sequence[Any]) -> list[Any]:
    """The dtypes other than float32. Raises: ValueError for one that is not of floats."""
    found = [jnp.dtype(dtype) for dtype in ([dtypes] if isinstance(dtypes, str) else dtypes)]
    for dtype in found:
        if not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"{where}: expected floating-point dtypes, got {dtype}")
    return [dtype for dtype in found if dtype != jnp.float32]
