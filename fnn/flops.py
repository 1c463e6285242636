"""Floating-point operations of a function, counted in its jaxpr, independent of the platform."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fnn import xla

__all__ = ["count_flops"]

# Data movement, selection, comparison and random bits.
_FREE = {
    "and", "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type",
    "copy", "copy_p", "device_put", "dynamic_slice", "dynamic_update_slice", "eq", "expand_dims",
    "gather", "ge", "gt", "iota", "is_finite", "le", "lt", "name", "ne", "not", "opt_barrier",
    "optimization_barrier", "or", "pad", "platform_index", "pvary", "random_bits", "random_fold_in",
    "random_seed", "random_split", "random_unwrap", "random_wrap", "real", "reshape", "rev",
    "scatter", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "slice",
    "sort", "split", "squeeze", "stop_gradient", "transpose", "xor",
}  # fmt: skip


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Floating-point operations of `function(*args)`, which is traced and not executed.

    A product of matrices (m, k) and (k, n) counts 2 m k n, a convolution 2 for each element of each
    output's window (padding included), a reduction 1 for each element of its input, and any other
    arithmetic 1 for each element of its output. Copies, comparisons and random bits count 0. The
    body of a scan counts once for each iteration, that of a `while_loop` once; a conditional counts
    as its most expensive branch.

    Args:
      args: arrays, or ShapeDtypeStructs.

    >>> ten = lambda x: jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=10)[0]
    >>> count_flops(ten, jnp.zeros((4, 4))) == 10 * 2 * 4**3
    True
    """
    with xla.plain():
        return of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def of_jaxpr(jaxpr: Any) -> float:
    """Operations of a jaxpr."""
    return sum(map(of_equation, jaxpr.eqns))


def of_equation(equation: Any) -> float:
    """Operations of one equation of a jaxpr."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"] * of_jaxpr(inner(params["jaxpr"]))
    if name == "cond":
        # Of branches chosen by platform, the last one is the default.
        own = params["branches"][-1:] if params.get("branches_platforms") else params["branches"]
        return max(of_jaxpr(inner(branch)) for branch in own)
    if name == "while":
        return sum(of_jaxpr(inner(params[part])) for part in ("cond_jaxpr", "body_jaxpr"))
    if parts := list(sub_jaxprs(equation)):
        return of_jaxpr(parts[0])
    if name in _FREE:
        return 0.0
    out = sum(math.prod(v.aval.shape) for v in equation.outvars if hasattr(v.aval, "shape"))
    shapes = [v.aval.shape for v in equation.invars if hasattr(v.aval, "shape")]
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * out * math.prod(shapes[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        features = shapes[1][params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * out * math.prod(shapes[1]) / features
    if name.startswith("reduce_window"):
        return float(out * math.prod(params["window_dimensions"]))
    if name.startswith(("reduce", "arg", "cum")):
        return float(math.prod(shapes[0]))
    return float(math.prod(shapes[-1])) if name.startswith("scatter") else float(out)


def sub_jaxprs(equation: Any) -> Iterator[Any]:
    """The jaxprs in the parameters of an equation, such as the body of a jitted function."""
    for value in equation.params.values():
        for part in value if isinstance(value, (tuple, list)) else [value]:
            if hasattr(inner(part), "eqns"):
                yield inner(part)


def inner(jaxpr: Any) -> Any:
    """The jaxpr of a closed one; anything else as it is."""
    return getattr(jaxpr, "jaxpr", jaxpr)
