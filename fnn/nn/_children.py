"""Submodels by address: a name, an index, or a name and an index in its list."""

from typing import Any

import jax

from fnn.expect import in_layer
from fnn.keys import fold_name
from fnn.types import Model, ModelState, Params, PRNGKey

Address = tuple[str | int, ...]


def child_key(key: PRNGKey | None, address: Address) -> Any:
    """The key of a child, which depends on its address alone."""
    if key is None:
        return None
    for part in address:
        key = fold_name(key, part) if isinstance(part, str) else jax.random.fold_in(key, part)
    return key


def child(parts: Any, address: Address, empty: Any) -> Any:
    """The parameters or state of one child; `empty` where `gathered` dropped it."""
    for part in address:
        if isinstance(part, str):
            parts = parts[part] if part in parts else ()
        else:
            parts = parts[part] if parts else ()
    return empty if is_empty(parts) else parts


def gathered(parts: dict[Address, Any], empty: Any) -> Any:
    """The parameters or state of all children: a dict by name, a list by index.

    Named children without any have no entry, and if no child has any, the result is `empty`: every
    node of a pytree adds dispatch overhead.
    """
    if all(map(is_empty, parts.values())):
        return empty
    if all(address == (i,) for i, address in enumerate(parts)):
        return list(parts.values())
    found: dict[Any, Any] = {}
    for (name, *index), part in parts.items():
        if is_empty(part):
            continue
        if index:
            found.setdefault(name, []).append(part)
        else:
            found[name] = part
    return found


def init_child(model: Model, at: Address, key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
    """Parameters and state of a child; an error in it gets a note with its address."""
    with in_layer(at, x):
        return model.init(child_key(key, at), x)


def apply_child(
    model: Model,
    at: Address,
    params: Params,
    model_state: ModelState,
    x: Any,
    *,
    key: PRNGKey | None,
    train: bool,
) -> tuple[Any, ModelState]:
    """Outputs and new state of a child, from its part of the parent's parameters, state and key.

    An error in it gets a note with its address and x; its operations are named by the address.
    """
    with in_layer(at, x):
        return model.apply(
            child(params, at, {}),
            child(model_state, at, ()),
            x,
            key=child_key(key, at),
            train=train,
        )


def is_empty(part: Any) -> bool:
    """Whether a node holds nothing: {} or ()."""
    return isinstance(part, (dict, tuple)) and not part
