"""The parts of a model by address: a name, an index, or a name and an index in its list."""

from typing import Any

import jax

from fnn.expect import in_layer
from fnn.keys import fold_name
from fnn.types import Model, ModelState, Params, PRNGKey

Address = tuple[str | int, ...]


def child_key(key: PRNGKey | None, address: Address) -> Any:
    """The randomness of a child: it follows from its address alone.

    >>> key = jax.random.key(0)
    >>> bool(child_key(key, ('head',)) == fold_name(key, 'head')), child_key(None, (0,))
    (True, None)
    """
    if key is None:
        return None
    for part in address:
        key = fold_name(key, part) if isinstance(part, str) else jax.random.fold_in(key, part)
    return key


def child(parts: Any, address: Address, empty: Any) -> Any:
    """The part of one child; `empty` where `gathered` left it out.

    >>> child({'blocks': [1, 2]}, ('blocks', 1), {}), child({}, ('activation',), {})
    (2, {})
    """
    for part in address:
        if isinstance(part, str):
            parts = parts[part] if part in parts else ()
        else:
            parts = parts[part] if parts else ()
    return empty if is_empty(parts) else parts


def gathered(parts: dict[Address, Any], empty: Any) -> Any:
    """The parts of all children: a dict by name, a list by index.

    Named children without parts have no entry, and if no child has parts, the result is `empty`:
    each node of a pytree costs a step time.

    >>> gathered({('hidden', 0): {'w': 1}, ('hidden', 1): {'w': 2}, ('act',): {}}, {})
    {'hidden': [{'w': 1}, {'w': 2}]}
    >>> gathered({(0,): (), (1,): {'mean': 0}}, ()), gathered({(0,): ()}, ())
    ([(), {'mean': 0}], ())
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
    """Parameters and state of a child; an error in it gets a note with its address.

    >>> from fnn.nn import lift
    >>> init_child(lift(jnp.tanh), ('act',), jax.random.key(0), jnp.zeros((1, 2)))
    ({}, ())
    """
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
    """A child's outputs and new state, by its part of the parent's parameters, state and noise.

    An error in it gets a note with its address and x; its operations are named by the address.

    >>> from fnn.nn import lift
    >>> y, _ = apply_child(lift(jnp.abs), ('act',), {}, (), jnp.array(-1.0), key=None, train=False)
    >>> y.item()
    1.0
    """
    with in_layer(at, x), scope(at):
        return model.apply(
            child(params, at, {}),
            child(model_state, at, ()),
            x,
            key=child_key(key, at),
            train=train,
        )


def is_empty(part: Any) -> bool:
    """Whether there is nothing in a part: {} or ().

    >>> is_empty({}), is_empty(()), is_empty([{}])
    (True, True, False)
    """
    return isinstance(part, (dict, tuple)) and not part


def scope(address: Address) -> Any:
    """A name scope for the operations of a child: profiles and `diagnose.summary` show it.

    >>> def block(x):
    ...     with scope(('blocks', 1)):
    ...         return jnp.sin(x)
    >>> print(jax.make_jaxpr(block)(0.0).eqns[0].source_info.name_stack)
    blocks/1
    """
    return jax.named_scope("/".join(map(str, address)))
