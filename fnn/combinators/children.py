"""The parts of a model by address: a name, an index, or a name and an index in its list."""

from typing import Any

import jax

from fnn.keys import fold_name
from fnn.types import PRNGKey

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


def is_empty(part: Any) -> bool:
    """Whether there is nothing in a part: {} or ().

    >>> is_empty({}), is_empty(()), is_empty([{}])
    (True, True, False)
    """
    return isinstance(part, (dict, tuple)) and not part
