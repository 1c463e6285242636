"""The law that a function supports all transforms of JAX, with results that agree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.dtypes import cast_floats, is_float
from fnn.testing._compare import fresh
from fnn.testing.battery import LawError
from fnn.testing.gradients import RTOL, STEP
from fnn.tree import path_of

# By the size of a float: the error of reordered sums relative to the largest entry. In a second
# derivative, terms 1e5 times as large as the result may cancel, as in the norm of two values.
SAME = {8: 1e-9, 4: 1e-3}

Leaves = list[Any]


def supports_all_transforms(
    function: Callable[..., Any], *args: Any, smooth: bool = True, dtype: Any = jnp.float64
) -> None:
    """`function` supports all transforms of JAX, and their results agree.

        <w, jvp(v)> = <vjp(w), v> = <w, f(x + h v) - f(x - h v)> / 2h
        H v forward over reverse = H v reverse over reverse, with H the Hessian of <w, f>
        each of them under vmap = each of them in a scan

    at two points x near the arguments, with a direction v at each, in one compiled program. Every
    other leaf of x is the same for both points, and has no batch axis under vmap.

    Args:
      function: of pytrees; leaves of `args` and of its outputs other than floats are ignored.
      smooth: whether it has no kink at `args`, so that finite differences are meaningful.
      dtype: of the floats of `args`; finite differences are taken in float64 only.

    Raises: AssertionError if they disagree, and the error of JAX if a transform is unsupported.

    >>> supports_all_transforms(lambda x: jnp.sin(x) * x, jnp.arange(3.0))
    """
    with jax.enable_x64(True):
        args = cast_floats(args, dtype)
        floats = [(path_of(keys), x) for keys, x in jax.tree.leaves_with_path(args) if is_float(x)]
        points = [_near(x, seed) for seed, (_, x) in enumerate(floats)]
        directions = [_draws(x, seed) for seed, (_, x) in enumerate(floats)]
        program = jax.jit(lambda *given: _derivatives(function, *given))
        found = jax.tree.map(np.asarray, program(points, directions, fresh(args)))
        wide = smooth and dtype == jnp.float64
    looped, batched, slopes = found
    paths = [path for path, _ in floats]
    _expect_agreement(paths, directions, looped, batched, slopes if wide else None)


def _near(x: Any, seed: int) -> Any:
    """x and a point a hundredth of its size away; x alone for every other leaf."""
    return x if seed % 2 else jnp.stack([x, x + x.dtype.type(0.01) * _draws(x, seed + 50)[0]])


def _draws(x: Any, seed: int) -> Any:
    """Two directions of the size of x."""
    size = float(np.abs(x).max(initial=0.0)) or 1.0
    draws = np.random.default_rng(seed).normal(size=(2, *x.shape))
    return jnp.asarray(size * draws, x.dtype)


def _derivatives(
    function: Callable[..., Any], points: Leaves, directions: Leaves, args: Any
) -> tuple[Any, Any, Any]:
    """At both points: reverse mode in a scan, forward mode under vmap, and finite differences."""
    weighted = _weighted(function, args)
    slope = jax.grad(weighted)
    axes = [None if i % 2 else 0 for i in range(len(points))]

    def reverse(points: Leaves, direction: Leaves) -> dict[str, Any]:
        def along(points: Leaves) -> tuple[Any, Leaves]:
            gradient = slope(points)
            return _dot(gradient, direction), gradient

        second, gradient = jax.grad(along, has_aux=True)(points)
        return {"gradient": gradient, "second": second}

    def forward(points: Leaves, direction: Leaves) -> dict[str, Any]:
        _, first = jax.jvp(weighted, (points,), (direction,))
        gradient, second = jax.jvp(slope, (points,), (direction,))
        return {"gradient": gradient, "second": second, "first": first}

    def difference(points: Leaves, direction: Leaves) -> Any:
        ahead, behind = (
            weighted([p + p.dtype.type(h) * d for p, d in zip(points, direction, strict=True)])
            for h in (STEP, -STEP)
        )
        return (ahead - behind) / (2 * STEP)

    def at(i: Any) -> dict[str, Any]:
        own = [p if axis is None else p[i] for p, axis in zip(points, axes, strict=True)]
        return reverse(own, [d[i] for d in directions])

    batched = (jax.vmap(f, (axes, 0))(points, directions) for f in (forward, difference))
    return jax.lax.map(at, jnp.arange(2)), *batched


def _weighted(function: Callable[..., Any], args: Any) -> Callable[[Leaves], Any]:
    """The randomly weighted sum of the outputs, as a function of the floats among `args`."""
    leaves, structure = jax.tree.flatten(args)

    def weighted(floats: Leaves) -> Any:
        given = iter(floats)
        moved = [next(given) if is_float(leaf) else leaf for leaf in leaves]
        outputs = jax.tree.leaves(function(*fresh(jax.tree.unflatten(structure, moved))))
        outputs = [y for y in outputs if is_float(y)]
        draws = [np.random.default_rng(i).normal(size=y.shape) for i, y in enumerate(outputs)]
        return _dot([jnp.asarray(w, y.dtype) for w, y in zip(draws, outputs, strict=True)], outputs)

    return weighted


def _dot(a: Leaves, b: Leaves) -> Any:
    products = [jnp.vdot(x, y).astype(jnp.float64) for x, y in zip(a, b, strict=True)]
    return jnp.stack(products).sum() if products else jnp.float64(0)


def _expect_agreement(
    paths: list[str], directions: Leaves, looped: Any, batched: Any, slopes: Any | None
) -> None:
    """Compares the results of `_derivatives`."""
    gradient, second = looped["gradient"], looped["second"]
    rtol, size = max(SAME[leaf.itemsize] for leaf in gradient), _largest(gradient)
    for i, path in enumerate(paths):
        _expect_close(
            f"the gradient by '{path}'",
            {"in a scan": gradient[i], "under vmap": batched["gradient"][i]},
            rtol * size,
            "look for a fixed axis, or a custom rule for batches",
        )
        _expect_close(
            f"the second derivative by '{path}'",
            {
                "reverse over reverse": second[i],
                "forward over reverse, under vmap": batched["second"][i],
            },
            rtol * max(_largest(second), 1e-3 * size),
            "look for a custom derivative that is not the function's",
        )
    pairs = [(_rows(g), _rows(d)) for g, d in zip(gradient, directions, strict=True)]
    along = np.asarray(sum((g * d).sum(axis=1) for g, d in pairs))
    typical = float(sum(np.linalg.norm(g) * np.linalg.norm(d) for g, d in pairs))
    _expect_close(
        "the first derivative",
        {"in reverse mode": along, "in forward mode": batched["first"]},
        rtol * typical,
        "look for a hand-written transpose of a linear map",
    )
    if slopes is not None:
        _expect_close(
            "the first derivative",
            {"in forward mode": batched["first"], "by central differences": slopes},
            RTOL * max(typical, 1e-3),
            "look for a custom derivative, stop_gradient, or a kink near the point",
        )


def _rows(leaf: Any) -> np.ndarray:
    return np.asarray(leaf, np.float64).reshape(len(leaf), -1)


def _largest(leaves: Leaves) -> float:
    return max((float(np.abs(leaf).max(initial=0.0)) for leaf in leaves), default=0.0)


def _expect_close(what: str, found: dict[str, Any], allowed: float, hint: str) -> None:
    (one, a), (other, b) = found.items()
    apart = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    if not apart.max(initial=0.0) <= allowed:
        worst = np.unravel_index(np.nan_to_num(apart, nan=np.inf).argmax(), apart.shape)
        raise LawError(
            f"supports_all_transforms: {what} at {tuple(map(int, worst))} is {a[worst]} {one} and "
            f"{b[worst]} {other}; they must be at most {allowed:.1e} apart; {hint}"
        )
