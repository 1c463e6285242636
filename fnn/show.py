"""Short strings for values, used by `__repr__`: shapes and counts instead of arrays; tables."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

# What these helpers of fnn.nn and fnn.optim make is named by their callers.
_HELPERS = ("stateless.", "_stateless.", "_recurrent.")
_MOST = 6  # entries of a list that are shown


def by_leaves(*classes: type) -> None:
    """Gives NamedTuples or dataclasses a `__repr__` with the shapes of their arrays.

    >>> from fnn.types import Batch
    >>> Batch(np.zeros((800, 2)), np.int32(3))
    Batch(x=float64[800,2], y=3)
    """
    for cls in classes:
        setattr(cls, "__repr__", fields)  # noqa: B010  mypy refuses the assignment


def by_constructor(*classes: type) -> None:
    """Gives NamedTuples of functions a `__repr__` with the call that made them; see `made_by`.

    >>> from fnn import nn
    >>> nn.linear(32)
    <Model linear(32)>
    """
    for cls in classes:
        setattr(cls, "__repr__", lambda self: f"<{type(self).__name__} {made_by(self)}>")  # noqa: B010


def fields(value: Any) -> str:
    """The fields of a NamedTuple or dataclass by name, each as a short string.

    >>> from fnn.types import Batch
    >>> fields(Batch(np.zeros((8, 2)), np.zeros(8, np.int32)))
    'Batch(x=float64[8,2], y=int32[8])'
    """
    names = getattr(value, "_fields", None) or [f.name for f in _fields_of(value)]
    shown = ", ".join(f"{name}={short(getattr(value, name))}" for name in names)
    return f"{type(value).__name__}({shown})"


def _fields_of(value: Any) -> Any:
    return dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()


def short(value: Any) -> str:
    """A short string for a value: the number, dtype and shape, or the size of a tree.

    >>> short(jnp.zeros((3, 4))), short(jnp.int32(7)), short({'w': jnp.zeros((3, 4))})
    ('float32[3,4]', '7', "{'w': float32[3,4]}")
    >>> short([{'kernel': jnp.zeros((3, 4)), 'bias': jnp.zeros(4)}] * 5)
    '10 arrays, 80 elements'
    >>> short(0.1 + 0.2), short(jnp.tanh), short(())
    ('0.3', 'tanh', '()')
    """
    if isinstance(value, jax.core.Tracer) or hasattr(value, "shape") and hasattr(value, "dtype"):
        return _array(value)
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return repr(value)
    if isinstance(value, (int, float)):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if _is_pair(value):
        return made_by(value)
    if not jax.tree.leaves(value):
        return repr(value) if isinstance(value, (dict, list, tuple)) else type(value).__name__
    if callable(value) and not isinstance(value, type):
        return made_by(value)
    if isinstance(value, type):
        return value.__name__
    return _tree(value)


def _array(value: Any) -> str:
    known = not isinstance(value, (jax.core.Tracer, jax.ShapeDtypeStruct)) and value.shape == ()
    if known and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        return short(np.asarray(value).item())
    return f"{getattr(value.dtype, 'name', value.dtype)}[{','.join(map(str, value.shape))}]"


def _tree(value: Any) -> str:
    if type(value).__repr__ in _OWN:
        return repr(value)
    if isinstance(value, (dict, list, tuple)) and len(jax.tree.leaves(value)) <= 4:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k!r}: {short(v)}" for k, v in value.items()) + "}"
        if not hasattr(value, "_fields"):
            shown = ", ".join(map(short, value))
            return f"[{shown}]" if isinstance(value, list) else f"({shown})"
    leaves = jax.tree.leaves(value)
    if len(leaves) == 1 and leaves[0] is value:  # not a pytree
        return f"{type(value).__name__}(...)"
    plain = isinstance(value, (dict, list, tuple)) and not hasattr(value, "_fields")
    counted = f"{len(leaves):,} arrays, {sum(map(np.size, map(_sized, leaves))):,} elements"
    return counted if plain else f"{type(value).__name__}({counted})"


def _sized(leaf: Any) -> Any:
    return np.broadcast_to(0, leaf.shape) if hasattr(leaf, "shape") else leaf


_OWN = {fields}


def history(value: Any) -> str:
    """First and last values of a `History`, and its lowest validation loss.

    >>> from fnn.types import History
    >>> print(History(train={'loss': np.array([2.0, 1.0, 0.5])}, eval_steps=np.array([2, 3]),
    ...               valid={'loss': np.array([0.7, 0.8]), 'accuracy': np.array([0.5, 0.6])}))
    History
      train  3 steps: loss 2 -> 0.5
      valid  2 evaluations: loss 0.7 -> 0.8 (lowest 0.7 after 2 steps), accuracy 0.5 -> 0.6
    """
    return "\n".join([type(value).__name__, *history_lines(value)])


def history_lines(value: Any) -> list[str]:
    """The lines of `history`, without the name of the type.

    >>> from fnn.types import History
    >>> history_lines(History(train={'loss': np.array([2.0, 1.0])}, eval_steps=(), valid={}))[0]
    '  train  2 steps: loss 2 -> 1'
    """
    train, valid = (dict(sorted(d.items(), key=_loss_first)) for d in (value.train, value.valid))
    steps = _length(train.get("loss"), "step")
    evaluations = _length(value.eval_steps, "evaluation")
    lines = [f"  train  {steps}{', '.join(f'{n} {_course(v)}' for n, v in train.items())}"]
    shown = {name: _course(values) for name, values in valid.items()}
    if "loss" in valid and _is_course(valid["loss"]):
        shown["loss"] += _lowest(np.asarray(valid["loss"]), np.asarray(value.eval_steps))
    return [*lines, f"  valid  {evaluations}{', '.join(f'{n} {v}' for n, v in shown.items())}"]


def _loss_first(item: tuple[str, Any]) -> tuple[bool, bool, str]:
    return item[0] != "loss", item[0] != "lr", item[0]


def _is_course(values: Any) -> bool:
    known = isinstance(values, (jax.Array, np.ndarray)) and not isinstance(values, jax.core.Tracer)
    return known and values.ndim == 1 and len(values) > 0


def _length(values: Any, unit: str) -> str:
    """The number of steps or evaluations, for the history of a single run."""
    if getattr(values, "ndim", 0) != 1:
        return ""
    return f"{len(values):,} {unit}{'' if len(values) == 1 else 's'}: "


def _course(values: Any) -> str:
    """First and last value of a single run; the shape of anything else."""
    if not _is_course(values):
        return short(values)
    first, last = (short(float(v)) for v in (values[0], values[-1]))
    return last if len(values) == 1 else f"{first} -> {last}"


def _lowest(loss: Any, steps: Any) -> str:
    if not np.isfinite(loss).any() or len(loss) == 1:
        return ""
    i = int(np.nanargmin(loss))
    return f" (lowest {short(float(loss[i]))} after {steps[i]:,} steps)"


def made_by(value: Any, depth: int = 2) -> str:
    """The call that made a function or a NamedTuple of functions, reconstructed from closures.

    The name is that of the enclosing function, and the arguments are its variables in the closures;
    defaults are omitted.

    >>> from fnn import nn, optim
    >>> made_by(nn.linear(32, bias=False)), made_by(optim.adamw(weight_decay=0.1))
    ('linear(32, bias=False)', 'adamw(weight_decay=0.1)')
    >>> made_by(jnp.tanh)
    'tanh'
    """
    functions = list(_functions(value))
    if not functions:
        return type(value).__name__
    if isinstance(value, tuple):
        functions.sort(key=lambda f: not _has_inside(f, value))
    known = _closed_over(functions)
    name = known.get("name") if isinstance(known.get("name"), str) else None
    first = functions[0]
    own = not isinstance(value, tuple) and not first.__module__.startswith("fnn.")
    if name is None and (own or "<locals>" not in first.__qualname__):
        return first.__name__
    if first.__qualname__.startswith("takes_arguments_of."):  # of nn._base
        functions, name = [inspect.unwrap(known["make"])], known["make"].__name__
    name = name or first.__qualname__.split(".<locals>")[0].rpartition(".")[2]
    if name == "lift" and callable(known.get("function")):
        return made_by(known["function"])
    constructor = next((g for f in functions if (g := f.__globals__.get(name))), None)
    arguments = ", ".join(_arguments(constructor, known, depth - 1)) if depth else "..."
    return f"{name.lstrip('_')}({arguments})"


def _has_inside(function: Any, pair: Any) -> bool:
    """Whether a function closes over a pair that contains another function of `pair`."""
    inner = [part for cell in _cells(function).values() for _, part in _parts(cell)]
    return any(f is g for part in inner for f in part for g in pair if f is not function)


def _functions(value: Any, depth: int = 4) -> Iterator[Any]:
    """The Python functions of a NamedTuple, or the function itself, and those they close over."""
    parts = list(value) if isinstance(value, tuple) else [value]
    found = [f for f in map(inspect.unwrap, filter(callable, parts)) if hasattr(f, "__code__")]
    yield from (f for f in found if not f.__qualname__.startswith(_HELPERS))
    for function in found if depth else ():
        for cell in _cells(function).values():
            if isinstance(cell, types.FunctionType):
                yield from _functions(cell, depth - 1)


def _cells(function: Any) -> dict[str, Any]:
    named = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    cells = {}
    for name, cell in named:
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not yet assigned
            continue
    return cells


def _closed_over(functions: list[Any]) -> dict[str, Any]:
    """Closure variables by name, of outer functions first; a dict `hyper` is unpacked."""
    known: dict[str, Any] = {}
    for function in functions:
        for name, value in _cells(function).items():
            known.setdefault(name, value)
    hyper = known.get("hyper")
    return {**hyper, **known} if isinstance(hyper, dict) else known


def _arguments(
    constructor: Callable[..., Any] | None, known: dict[str, Any], depth: int
) -> Iterator[str]:
    try:
        parameters = dict(inspect.signature(constructor).parameters) if constructor else {}
    except (TypeError, ValueError):
        parameters = {}
    parameters = {
        n: p for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    inner = _outermost([_parts(v) for n, v in known.items() if n not in parameters])
    shown = [f"{name}={made_by(p, depth)}" if name else made_by(p, depth) for name, p in inner]
    left_out = f"... {len(shown) - 4} more"
    yield from shown if len(shown) <= _MOST else [*shown[:3], left_out, shown[-1]]
    positional = not inner
    # A helper shared by several constructors has other names for their numeric arguments.
    helped = known.items() if isinstance(known.get("name"), str) else ()
    numbers = {n: v for n, v in helped if isinstance(v, (int, float, jax.Array))}
    renamed = [v for n, v in numbers.items() if n not in parameters and not isinstance(v, bool)]
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in known]
    known = known | dict(zip(missing, renamed))  # noqa: B905
    for name, parameter in parameters.items():
        if name not in known or _same(known[name], parameter.default):
            positional = False
            continue
        free = positional and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        yield short(known[name]) if free else f"{name}={short(known[name])}"


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Models, optimizers and transforms in a closure variable, with their names."""
    if isinstance(value, Mapping):
        named = [(str(k[0]) if isinstance(k, tuple) and k else str(k), v) for k, v in value.items()]
        return [("" if n.isdigit() else n, v) for n, v in named if _is_pair(v)]
    values = value if isinstance(value, (tuple, list)) and not _is_pair(value) else [value]
    return [("", v) for v in values if _is_pair(v)]


def _outermost(variables: list[list[tuple[str, Any]]]) -> list[tuple[str, Any]]:
    """The parts of all variables, each once, without parts that are inside other parts."""
    inside = {id(p) for parts in variables for _, part in parts for p in _inside(part)}
    found: list[tuple[str, Any]] = []
    for parts in variables:
        seen = inside | {id(part) for _, part in found}
        found += [(name, part) for name, part in parts if id(part) not in seen]
    return found


def _inside(part: Any) -> Iterator[Any]:
    for function in _functions(part):
        for cell in _cells(function).values():
            for _, inner in _parts(cell):
                yield inner
                yield from _inside(inner)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields") and callable(value[0])


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, (int, float, str, bool)) or value is None:
        return type(value) is type(default) and value == default
    return value is default


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells as lines of text with aligned columns, two spaces apart.

    Args:
      left: number of leading columns that are aligned left; the others are aligned right.

    >>> print(table([['name', 'n'], ['a', '10'], ['bcd', '5']]))
    name   n
    a     10
    bcd    5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)
