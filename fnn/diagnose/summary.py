"""The layers of a model, their parameters and FLOPs, computed from shapes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn import show, tree
from fnn._messages import advice, is_array, refuse
from fnn.diagnose._layer_rows import Layer, layers_of
from fnn.expect import spec
from fnn.flops import count_flops
from fnn.types import Model, Optimizer

_WIDTH = 80  # columns of the table


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One array of a model."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    size: int  # number of elements
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of `summary`; prints as a table of the layers."""

    layers: tuple[Layer, ...]
    params: tuple[Leaf, ...]
    model_state: tuple[Leaf, ...]
    opt_state: tuple[Leaf, ...]  # () without an optimizer
    inputs: str  # shapes and dtypes
    outputs: str
    forward_flops: float  # of an evaluation of the whole batch
    step_flops: float  # of the forward and backward pass in training

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in self.params)

    @property
    def bytes(self) -> int:
        """Bytes of the parameters."""
        return sum(leaf.bytes for leaf in self.params)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "kind", "output", "params", "FLOPs")]
        rows += [cells for layer in self.layers for cells in _cells(layer)]
        lines = _within(_WIDTH, rows)
        totals = {"parameters": f"{self.count:,} ({_bytes(self.params)})"}
        totals |= {"model state": _bytes(self.model_state)} if self.model_state else {}
        totals |= {"optimizer state": _bytes(self.opt_state)} if self.opt_state else {}
        totals |= {
            "input": self.inputs,
            "output": self.outputs,
            "FLOPs of the batch": f"forward {_flops(self.forward_flops)}, "
            f"forward and backward {_flops(self.step_flops)}",
        }
        rule = "-" * max(map(len, lines))
        return "\n".join([*lines, rule, *(f"{k}: {v}" for k, v in totals.items())])

    __repr__ = __str__


def summary(model: Model, x: Any, *, optimizer: Optimizer | None = None) -> Summary:
    """A table of the layers of `model` on inputs like `x`; traced, without computing anything.

    A layer is a function of fnn that uses parameters, or an activation, found in the jaxpr of the
    model: any function works, not only combinators. Repeated layers, in a `stack` or a list, are
    one line with the sum ("x 12"), and below it, indented, the layers of one copy.

    FLOPs are those of the forward pass of the whole batch in evaluation: for a linear layer,
    2 examples inputs outputs for the product.

    Args:
      x: a batch of inputs, or ShapeDtypeStructs.
      optimizer: adds the memory of its state.

    Returns: a `Summary`, which prints as a table of at most 80 columns.

    >>> from fnn import models, nn, optim
    >>> from fnn.nn import sequential
    >>> model = sequential(nn.linear(3), jax.nn.relu, nn.linear(1))
    >>> print(summary(model, jnp.zeros((8, 2)), optimizer=optim.adam()))
    layer  kind    output  params  FLOPs
    0      linear  (8, 3)       9    120
    1      relu    (8, 3)       -     24
    2      linear  (8, 1)       4     56
    ------------------------------------
    parameters: 13 (52 B)
    optimizer state: 108 B
    input: float32[8,2]
    output: float32[8,1]
    FLOPs of the batch: forward 200, forward and backward 436
    """
    if not isinstance(model, Model):
        refuse("summary", "model to be a Model", model, advice(model, Model))
    if not jax.tree.leaves(x) or not all(map(is_array, jax.tree.leaves(x))):
        refuse("summary", "x to be a batch of arrays", x, "convert it: jnp.asarray(...)")
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
    opt_state = () if optimizer is None else jax.eval_shape(optimizer.init, params)
    layers = layers_of(forward, params, model_state, x)
    return Summary(
        layers=layers,
        params=tuple(_leaves(params)),
        model_state=tuple(_leaves(model_state)),
        opt_state=tuple(_leaves(opt_state)),
        inputs=_specs(x),
        outputs=_specs(jax.eval_shape(forward, params, model_state, x)),
        forward_flops=sum(layer.flops for layer in layers),
        step_flops=count_flops(backward, params, model_state, x, key),
    )


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


def _cells(layer: Layer, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, ...]]:
    """The row of a layer, followed by those of one of its copies."""
    own = layer.path.removeprefix(prefix).strip("/") or ("(all)" if layer.count else "-")
    name = "  " * depth + own + (f" x {layer.times}" if layer.times > 1 else "")
    count = f"{layer.count:,}" if layer.count else "-"
    yield name, layer.kind, layer.output, count, _flops(layer.flops)
    for part in layer.layers:
        yield from _cells(part, _parent(layer.path, part.path), depth + 1)


def _parent(path: str, inside: str) -> str:
    """The path of the first copy, 'blocks/0' of 'blocks/0-11', if `inside` begins with it."""
    head, _, last = path.rpartition("/")
    first = "/".join(part for part in (head, last.split("-")[0]) if part)
    return first if inside.startswith(first) else ""


def _within(width: int, rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of the table; long names are shortened in the middle to fit."""
    over = max(map(len, show.table(rows, left=3).splitlines())) - width
    if over > 0:
        most = max(len(row[0]) for row in rows) - over
        rows = [(_shortened(row[0], max(most, 12)), *row[1:]) for row in rows]
    return show.table(rows, left=3).splitlines()


def _shortened(name: str, most: int) -> str:
    kept = (most - 3) // 2
    return name if len(name) <= most else f"{name[: most - 3 - kept]}...{name[-kept:]}"


def _bytes(leaves: tuple[Leaf, ...]) -> str:
    return _scaled(sum(leaf.bytes for leaf in leaves), 1024, "B")


def _flops(amount: float) -> str:
    return _scaled(amount, 1000, "").rstrip()


def _scaled(amount: float, base: int, unit: str) -> str:
    """A number in the largest unit in which it is at least 1.

    >>> _scaled(36, 1024, 'B'), _scaled(3_500_000, 1000, 'FLOP')
    ('36 B', '3.50 MFLOP')
    """
    for prefix in ("", "k" if base == 1000 else "Ki", "M" if base == 1000 else "Mi"):
        if amount < base:
            return f"{amount:,.0f} {unit}" if not prefix else f"{amount:.2f} {prefix}{unit}"
        amount /= base
    return f"{amount:,.2f} {'G' if base == 1000 else 'Gi'}{unit}"
