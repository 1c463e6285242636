"""What a model is made of, and what it costs, known from shapes alone."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array

from fnn import text, tree
from fnn.expect import spec
from fnn.types import Model


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One array of a model."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    size: int  # numbers in it
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `summary` returns; printed, it is a table."""

    params: tuple[Leaf, ...]
    model_state: tuple[Leaf, ...]
    inputs: str  # their shapes and dtypes
    outputs: str
    forward_flops: float  # of an evaluation of the whole batch
    step_flops: float  # of the output in training, and of its gradient to the parameters

    @property
    def count(self) -> int:
        """Parameters."""
        return sum(leaf.size for leaf in self.params)

    @property
    def bytes(self) -> int:
        """Of the parameters; an optimizer such as Adam keeps twice as many besides."""
        return sum(leaf.bytes for leaf in self.params)

    def __str__(self) -> str:
        head = ("params", "shape", "dtype", "count", "bytes")
        state = [("model_state", "", "", "", "")] if self.model_state else []
        rows = [head, *map(_cells, self.params), *state, *map(_cells, self.model_state)]
        lines = text.table(rows, left=3).splitlines()
        totals = {
            "parameters": f"{self.count:,} ({_scaled(self.bytes, 1024, 'B')})",
            "input": self.inputs,
            "output": self.outputs,
            "forward": _scaled(self.forward_flops, 1000, "FLOP"),
            "forward and backward": _scaled(self.step_flops, 1000, "FLOP"),
        }
        rule = "-" * max(map(len, lines))
        return "\n".join([*lines, rule, *(f"{k}: {v}" for k, v in totals.items())])


def summary(model: Model, x: Any) -> Summary:
    """Parameters, shapes, bytes and FLOPs of `model` on inputs like `x`; nothing is computed.

    The FLOPs are those of XLA's cost analysis, before the program is optimised for a device: a
    multiplication and an addition count as two, an exponential as none, and what a `scan` repeats
    as often as it is repeated. A `while_loop` counts once, since nobody knows its length.

    Args:
      x: a batch of inputs, or ShapeDtypeStructs in their place.

    Returns: a `Summary`, which prints as a table.

    >>> from fnn import models
    >>> print(summary(models.dense(3), jnp.zeros((8, 2))))
    params  shape   dtype    count  bytes
    bias    (3,)    float32      3     12
    kernel  (2, 3)  float32      6     24
    -------------------------------------
    parameters: 9 (36 B)
    input: float32[8,2]
    output: float32[8,3]
    forward: 120 FLOP
    forward and backward: 260 FLOP
    """
    x = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jnp.result_type(a)), x)
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, model_state = jax.eval_shape(model.init, key, x)

    def forward(params: Any, model_state: Any, x: Any) -> Any:
        return model.apply(params, model_state, x)[0]

    def total(params: Any, model_state: Any, x: Any, key: Any) -> Array:
        outputs, _ = model.apply(params, model_state, x, key=key, train=True)
        parts = [jnp.asarray(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(outputs)]
        return sum(parts[1:], start=parts[0])

    backward = jax.value_and_grad(total, allow_int=True)
    outputs = jax.eval_shape(forward, params, model_state, x)
    return Summary(
        params=tuple(_leaves(params)),
        model_state=tuple(_leaves(model_state)),
        inputs=_specs(x),
        outputs=_specs(outputs),
        forward_flops=count_flops(forward, params, model_state, x),
        step_flops=count_flops(backward, params, model_state, x, key),
    )


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of `function(*args)` by XLA, the bodies of scans times their turns.

    Args:
      args: arrays, or ShapeDtypeStructs in their place.

    >>> ten = lambda x: jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=10)[0]
    >>> round(count_flops(ten, jnp.zeros((4, 4))) / (10 * 2 * 4**3), 1)
    1.0
    """
    return _flops(jax.make_jaxpr(function)(*args))


def _flops(jaxpr: Any) -> float:
    """XLA counts the body of a loop once; what is missing is added here."""
    whole = _counted_by_xla(jaxpr)
    for body, turns in _scans(jaxpr.jaxpr):
        whole += turns * _flops(body) - _counted_by_xla(body)
    return whole


def _counted_by_xla(jaxpr: Any) -> float:
    specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in jaxpr.in_avals]
    cost = jax.jit(jaxpr_as_fun(jaxpr)).lower(*specs).cost_analysis()
    parts = cost if isinstance(cost, list) else [cost]  # a list, where there are several programs
    return sum(float((part or {}).get("flops", 0.0)) for part in parts)


def _scans(jaxpr: Any) -> Iterator[tuple[Any, int]]:
    """The bodies of the scans, with their lengths, but not those inside of other scans."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            yield equation.params["jaxpr"], equation.params["length"]
            continue
        for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from _scans(getattr(value, "jaxpr", value))


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")


def _leaves(values: Any) -> Iterator[Leaf]:
    for path, leaf in zip(tree.paths(values), jax.tree.leaves(values), strict=True):
        size = math.prod(leaf.shape)
        yield Leaf(
            path=path or "(all)",
            shape=tuple(leaf.shape),
            dtype=leaf.dtype.name,
            size=size,
            bytes=size * leaf.dtype.itemsize,
        )


def _specs(values: Any) -> str:
    paths, leaves = tree.paths(values), jax.tree.leaves(values)
    named = [f"{p}: {spec(a)}" if p else spec(a) for p, a in zip(paths, leaves)]  # noqa: B905
    return ", ".join(named)


def _cells(leaf: Leaf) -> tuple[str, ...]:
    return leaf.path, str(leaf.shape), leaf.dtype, f"{leaf.size:,}", f"{leaf.bytes:,}"


def _scaled(amount: float, base: int, unit: str) -> str:
    """A number in the largest unit that leaves it at least 1.

    >>> _scaled(36, 1024, 'B'), _scaled(3_500_000, 1000, 'FLOP')
    ('36 B', '3.50 MFLOP')
    """
    for prefix in ("", "k" if base == 1000 else "Ki", "M" if base == 1000 else "Mi"):
        if amount < base:
            return f"{amount:,.0f} {unit}" if not prefix else f"{amount:.2f} {prefix}{unit}"
        amount /= base
    return f"{amount:,.2f} {'G' if base == 1000 else 'Gi'}{unit}"
