"""The layers of a model, found in its jaxpr, with their parameters and FLOPs.

An equation belongs to the layer function in its traceback, and to the parameters that it reads. So
the layers of any function are found, not only those of combinators.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fnn import tree, xla
from fnn.flops import of_equation, sub_jaxprs

_FNN = Path(__file__).parents[1]
_COMBINATORS = {"_base", "_children", "compact", "compute", "sequential", "stack"}  # of fnn/nn
_LAYERS = (
    *(str(_FNN / part) for part in ("layers/", "activations.py")),
    *(str(file) for file in (_FNN / "nn").glob("*.py") if file.stem not in _COMBINATORS),
)
_LIFT = "lift.<locals>.apply"  # of a plain function among the layers of a model
_LIBRARIES = ("/jax/", "/jaxlib/", "/jaxtyping/", "<@beartype", "/beartype/", "/contextlib.py")
_CALLS = ("custom_", "pjit", "jit", "remat", "checkpoint", "closed_call", "core_call")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer, or `times` layers of one shape, whose sums are `count` and `flops`."""

    path: str  # of its parameters
    kind: str  # the function that computes it
    output: str  # shape
    count: int  # parameters, without those of an earlier layer
    flops: float  # of the forward pass
    times: int = 1
    layers: tuple["Layer", ...] = ()  # of one copy, if it is a stack


class _Loop(NamedTuple):
    """A scan around a layer."""

    equation: int
    length: int
    copies: int  # of the parameters: `length` in a stack, 1 in a loop over time


@dataclass(eq=False)
class _Row:
    """A layer under construction."""

    call: Any
    kind: str
    scope: str = ""
    loops: tuple[_Loop, ...] = ()
    leaves: dict[str, int] = field(default_factory=dict)  # path -> elements counted here
    flops: float = 0.0
    output: tuple[int, Any] = (-1, None)  # index of the equation, and its type
    last: Any = None

    @property
    def path(self) -> str:
        path = _common(path.split("/")[:-1] for path in self.leaves)
        # Unrolled blocks of a stack share a path, and each has its own scope.
        return self.scope if not self.leaves or _is_inside(self.scope, path) else path


def _is_inside(scope: str, path: str) -> bool:
    """Whether a scope has all parts of a path, in order."""
    parts = iter(scope.split("/"))
    return all(part in parts for part in path.split("/") if part)


class _Value(NamedTuple):
    """A variable: the parameters that it is computed from alone, or its layer."""

    leaves: dict[str, int] = {}
    row: _Row | None = None
    made: int = 0
    type: Any = None


def layers_of(function: Any, params: Any, model_state: Any, x: Any) -> tuple[Layer, ...]:
    """The layers of `function(params, model_state, x)`, in the order of their first equation.

    Operations outside of layers, such as the sum of a residual connection, are the last one,
    "(other)"; "(unused)" are parameters that the function does not read.

    >>> from fnn import layers
    >>> params = {'a': layers.linear_init(jax.random.key(0), 3, 4)}
    >>> linear = lambda params, state, x: layers.linear(params['a'], x)
    >>> [found] = layers_of(linear, params, (), jnp.zeros((8, 3)))
    >>> found.path, found.kind, found.output, found.count, found.flops
    ('a', 'linear', '(8, 4)', 16, 224.0)
    """
    return tuple(_folded(_stacked(_walked(function, params, model_state, x).finished())))


def stacked_params(function: Any, params: Any, model_state: Any, x: Any) -> dict[str, int]:
    """The number of layers along the first axis of stacked parameters, by path.

    >>> from fnn import models, nn
    >>> from fnn.nn import stack
    >>> model, x = stack(nn.linear(3), 5), jnp.zeros((1, 3))
    >>> forward = lambda params, model_state, x: model.apply(params, model_state, x)[0]
    >>> stacked_params(forward, *model.init(jax.random.key(0), x), x)
    {'bias': 5, 'kernel': 5}
    """
    return dict(sorted(_walked(function, params, model_state, x).stacked.items()))


def _walked(function: Any, params: Any, model_state: Any, x: Any) -> "_Walk":
    with xla.plain():
        jaxpr = jax.make_jaxpr(function)(params, model_state, x).jaxpr
    sizes = dict(zip(tree.paths(params), map(_size, jax.tree.leaves(params)), strict=True))
    names = [*sizes, *tree.paths(model_state)]
    known = {v: _Value({path: sizes.get(path, 0)}) for v, path in zip(jaxpr.invars, names)}  # noqa: B905
    walk = _Walk(sizes)
    walk.jaxpr(jaxpr, known, "", ())
    walk.used([known.get(v, _Value()) for v in jaxpr.outvars if not hasattr(v, "val")], None)
    return walk


def _size(leaf: Any) -> int:
    return math.prod(leaf.shape)


class _Walk:
    """Assigns each equation to a row."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._rows: list[_Row] = []
        self._other = _Row(None, "(other)")
        self._unseen = dict(sizes)
        self._made = 0
        self.stacked: dict[str, int] = {}  # path -> number of layers along its first axis

    def finished(self) -> list[_Row]:
        """The layers, then unused parameters and other operations."""
        unused = [_Row(None, "(unused)", leaves={path: n}) for path, n in self._unseen.items() if n]
        return [*self._rows, *unused, *([self._other] if self._other.flops else [])]

    def jaxpr(
        self, jaxpr: Any, known: dict[Any, _Value], scope: str, loops: tuple[_Loop, ...]
    ) -> None:
        """Walks the equations; `known` has the inputs, and gets the other variables."""
        for e in jaxpr.eqns:
            given = [_Value() if hasattr(v, "val") else known.get(v, _Value()) for v in e.invars]
            at = "/".join(part for part in (scope, str(e.source_info.name_stack)) if part)
            if self._is_entered(e, given):
                known |= self._inside(e, given, at, loops)
            else:
                known |= self._equation(e, given, at, loops)

    def _is_entered(self, e: Any, given: list[_Value]) -> bool:
        """Whether an equation is a call or a scan that may contain layers."""
        name = e.primitive.name
        called = name == "scan" or name.startswith(_CALLS)
        return called and _layer_call(e) is None and any(value.leaves for value in given)

    def _inside(
        self, e: Any, given: list[_Value], at: str, loops: tuple[_Loop, ...]
    ) -> dict[Any, _Value]:
        body = next(sub_jaxprs(e))
        if e.primitive.name == "scan":
            length = e.params["length"]
            # Scanned arrays have one axis less inside.
            ndims = zip(e.invars, body.invars, strict=True)
            scanned = [outer.aval.ndim > inner.aval.ndim for outer, inner in ndims]
            paths = [p for v, is_ in zip(given, scanned, strict=True) if is_ for p in v.leaves]
            loops = (*loops, _Loop(id(e), length, length if paths else 1))
            self.stacked |= dict.fromkeys(paths, length)
            given = [
                v._replace(leaves={p: n // length for p, n in v.leaves.items()}) if is_ else v
                for v, is_ in zip(given, scanned, strict=True)
            ]
        inside = dict(zip(body.invars, given, strict=True))
        self.jaxpr(body, inside, at, loops)
        outputs = [_Value() if hasattr(v, "val") else inside.get(v, _Value()) for v in body.outvars]
        return dict(zip(e.outvars, outputs, strict=True))

    def _equation(
        self, e: Any, given: list[_Value], at: str, loops: tuple[_Loop, ...]
    ) -> dict[Any, _Value]:
        leaves = {path: n for value in given for path, n in value.leaves.items()}
        alone = bool(leaves) and all(
            value.leaves or hasattr(v, "val") for value, v in zip(given, e.invars, strict=True)
        )
        call = _layer_call(e)
        in_none = call is None and (alone or not leaves)
        row = self._other if in_none else self._row(e, call, leaves, at, loops)
        self.used(given, row)
        row.flops += of_equation(e) * math.prod(loop.length for loop in loops)
        if in_none:
            return dict.fromkeys(e.outvars, _Value(_of_slice(e, leaves)))
        for path, n in leaves.items():
            had = row.leaves.get(path, 0)
            new = max(min(n - had, self._unseen.get(path, 0)), 0)
            row.leaves[path] = had + new
            if new:
                self._unseen[path] -= new * math.prod(loop.copies for loop in loops)
        row.last = e.outvars[0].aval
        self._made += 1
        kept = leaves if alone else {}
        return {v: _Value(kept, row, self._made, v.aval) for v in e.outvars}

    def _row(
        self, e: Any, call: Any, leaves: dict[str, int], at: str, loops: tuple[_Loop, ...]
    ) -> _Row:
        """The last row, if the equation is of the same call; else a new one."""
        kind, key = call or (_function(e), _common(path.split("/")[:-1] for path in leaves))
        row = self._rows[-1] if self._rows else None
        same = row is not None and row.call == (at, key, loops)
        if row is None or not same or not _same_indices(leaves, row.leaves):
            row = _Row((at, key, loops), kind, at, loops)
            self._rows.append(row)
        return row

    def used(self, values: list[_Value], by: _Row | None) -> None:
        """Sets a layer's output: its last value that another layer uses."""
        for value in values:
            if value.row is not None and value.row is not by:
                value.row.output = max(
                    value.row.output, (value.made, value.type), key=itemgetter(0)
                )


def _of_slice(e: Any, leaves: dict[str, int]) -> dict[str, int]:
    """The number of elements of each parameter in a slice."""
    if "slice" not in e.primitive.name or not leaves:
        return leaves
    whole, part = math.prod(e.invars[0].aval.shape), math.prod(e.outvars[0].aval.shape)
    return {path: n * part // max(whole, 1) for path, n in leaves.items()}


def _same_indices(new: Iterable[str], old: Iterable[str]) -> bool:
    """Whether paths have the same list indices, as those of one layer do."""
    a, b = ({tuple(filter(str.isdigit, path.split("/"))) for path in paths} for paths in (new, old))
    return not a or not b or a <= b


def _common(paths: Iterable[list[str]]) -> str:
    """The longest common prefix of paths."""
    columns = zip(*paths)  # noqa: B905  up to the shortest
    same = []
    for column in columns:
        if len(set(column)) > 1:
            break
        same.append(column[0])
    return "/".join(same)


def _frames(e: Any) -> list[Any]:
    """(code, offset) of the Python call stack, the outermost first."""
    traceback = e.source_info.traceback
    codes, offsets = traceback.raw_frames() if traceback else ((), ())
    return list(zip(codes, offsets, strict=True))[::-1]


def _layer_call(e: Any) -> tuple[str, Any] | None:
    """The name of the layer function of an equation, and the stack of its caller."""
    frames = _frames(e)
    for i, (code, _) in enumerate(frames):
        if code.co_filename.startswith(_LAYERS):
            inner = [c for c, _ in frames[i:] if c.co_filename.startswith(_LAYERS)]
            names = [c.co_qualname.split(".")[0] for c in inner]
            public = [name for name in names if not name.startswith("_")]
            return (public or names)[0].strip("_"), tuple(frames[:i])
        if code.co_qualname == _LIFT:
            return _function(e, frames[i + 1 :]), tuple(frames[:i])
    return None


def _function(e: Any, frames: list[Any] | None = None) -> str:
    """The user's function that computes an equation, or the name of the operation."""
    own = [
        code
        for code, _ in (_frames(e) if frames is None else frames)
        if not any(part in code.co_filename for part in _LIBRARIES)
    ]
    if not own:
        of_jax = [c.co_name for c, _ in frames or () if _is_function_of_jax(c.co_filename)]
        return of_jax[0] if of_jax else _operation(e)
    names = [code.co_name for code in (own[::-1] if frames is None else own)]
    named = [name for name in names if not name.startswith(("_", "<"))]
    return (named or names)[0].strip("<>")


def _operation(e: Any) -> str:
    """The name of a call, such as relu, also inside a custom derivative; else the operation."""
    inner = [sub.eqns for sub in sub_jaxprs(e)] if e.primitive.name.startswith("custom_") else []
    if "name" not in e.params and len(inner) == 1 and len(inner[0]) == 1:
        return _operation(inner[0][0])
    return str(e.params.get("name", e.primitive.name))


def _is_function_of_jax(filename: str) -> bool:
    """Whether a file belongs to `jax.nn` or `jax.numpy`."""
    return "/_src/n" in filename and not filename.endswith("array_methods.py")


def _stacked(rows: Iterable[_Row], depth: int = 0) -> Iterator[Layer]:
    """The rows as layers, those of a stack nested in it."""
    for loop, group in groupby(rows, lambda row: row.loops[depth] if row.loops[depth:] else None):
        if loop is None:
            yield from map(_layer, group)
            continue
        inside = tuple(_folded(_stacked(group, depth + 1)))
        yield Layer(
            path=_common(layer.path.split("/") for layer in inside),
            kind="stack" if loop.copies > 1 else "scan",
            output=inside[-1].output,
            count=loop.copies * sum(layer.count for layer in inside),
            flops=loop.length * sum(layer.flops for layer in inside),
            times=loop.length,
            layers=inside,
        )


def _layer(row: _Row) -> Layer:
    made = row.output[1] if row.output[1] is not None else row.last
    return Layer(
        path=row.path,
        kind=row.kind,
        output="" if made is None else str(tuple(made.shape)),
        count=sum(row.leaves.values()),
        flops=row.flops / math.prod(loop.length for loop in row.loops),
    )


def _folded(layers: Iterable[Layer], depth: int = 0) -> Iterator[Layer]:
    """Merges consecutive equal blocks of a list; paths are equal up to `depth`."""
    blocks = [(at, list(block)) for at, block in groupby(layers, lambda x: _block(x, depth))]
    for _, group in groupby(enumerate(blocks), lambda item: _shape_of(item[0], *item[1])):
        alike = [block for _, block in group]
        (prefix, first), inside = alike[0]
        parts = f"{prefix}/{first}".strip("/").count("/") + 1
        below = list(_folded(inside, parts)) if first else inside
        if len(alike) == 1:
            yield from below
            continue
        one = below[0] if len(below) == 1 and below[0].times == 1 else _group(below)
        yield replace(
            one,
            path="/".join(part for part in (prefix, f"{first}-{alike[-1][0][1]}") if part),
            times=len(alike),
            count=len(alike) * sum(layer.count for layer in inside),
            flops=len(alike) * sum(layer.flops for layer in inside),
        )


def _group(layers: list[Layer]) -> Layer:
    output = layers[-1].output
    return Layer(path="", kind="blocks", output=output, count=0, flops=0.0, layers=tuple(layers))


def _block(layer: Layer, depth: int) -> tuple[str, str]:
    """The path up to the first index after `depth` parts, and the index, or ''."""
    parts = layer.path.split("/")
    for i, part in enumerate(parts[depth:], depth):
        if part.isdigit():
            return "/".join(parts[:i]), part
    return layer.path, ""


def _shape_of(position: int, at: tuple[str, str], layers: list[Layer]) -> Any:
    """Equal for equal blocks of a list; unique outside of lists."""
    prefix, index = at
    if not index:
        return position
    skipped = len(f"{prefix}/{index}" if prefix else index)
    return prefix, tuple(replace(layer, path=layer.path[skipped:]) for layer in layers)
