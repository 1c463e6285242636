"""Training with products in 8-bit floats."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from fnn.expect import did_you_mean
from fnn.layers.fp8 import FP8, ROLES, Watched
from fnn.recipe import Recipe
from fnn.types import BatchLoss, Gradient, LossSums, Model, ModelState, Pair, Params, PRNGKey

Entries = Mapping[str, Any]  # path of a layer's parameters -> its entry 'fp8'
Mask = Callable[[Params], PyTree]

SCALINGS = ("current", "delayed")


def fp8(
    recipe: Recipe, scaling: str = "current", *, history: int = 16, mask: Mask | None = None
) -> Recipe:
    """The recipe with the products of its linear layers and attention projections in 8 bits.

        y = q(s_x x) q(s_k K) / (s_x s_k)

    with q rounding to float8 e4m3, and to e5m2 for the gradients of outputs; sums are in float32.
    The parameters, and all that is computed between the products, keep their dtypes: write
    `fp8(mixed_bfloat16(recipe))`. The backward pass keeps the inputs of these layers in 8 bits.
    NVIDIA's GPUs have instructions for them since Hopper, where all sizes are multiples of 16;
    other devices compute the same values more slowly.

    Args:
      scaling: of each array, so that its largest magnitude is representable: 'current' reads the
        array itself; 'delayed' takes the maximum over the last steps, which saves a pass over the
        array, and lets larger values saturate.
      history: number of steps of that maximum, at least 2.
      mask: marks the kernels, as `tree.matching('blocks*')` does; None: all that are multiplied so.
        Embeddings, heads of language models, convolutions and scores of attention are not.

    Delayed scaling makes the model state {'model': the model's own, 'fp8': {path: (3, history)}},
    magnitudes of inputs, kernel and gradients, the latest first. An evaluation does not change it;
    parts of a batch are averaged.
    Raises: ValueError for another scaling, a shorter history, delayed scaling with
      `train.private_gradient`, and at init for a model without such products.
    Source: Micikevicius et al. 2022, arXiv:2209.05433. Deviates: scales are powers of two, so that
      scaling rounds nothing. Compat: `Fp8DotGeneral` of Flax is delayed, with 1,024 steps.

    >>> from fnn import losses, nn, optim, schedules
    >>> plain = Recipe(nn.linear(2), losses.cross_entropy, optim.sgd(), schedules.constant(0.1))
    >>> model, x = fp8(plain, 'delayed', history=4).model, jnp.array([[1.0, 0.3]])
    >>> params, state = model.init(jax.random.key(0), x)
    >>> {path: array.shape for path, array in state['fp8'].items()}
    {'': (3, 4)}
    >>> model.apply({'kernel': jnp.ones((2, 2))}, state, x)[0].tolist()
    [[1.3125, 1.3125]]
    """
    if scaling not in SCALINGS:
        raise ValueError(
            f"fp8: expected scaling to be one of {', '.join(SCALINGS)}, got {scaling!r}; "
            f"{did_you_mean(scaling, SCALINGS, 'write one of them')}"
        )
    if history < 2:
        raise ValueError(f"fp8: expected a history of at least 2 steps, got {history}; give more")
    if scaling == "current":
        return recipe._replace(model=_current(recipe.model, mask))
    if "private_gradient" in getattr(recipe.gradient, "__qualname__", ""):
        raise ValueError(
            "fp8: expected a gradient that is a sum over examples, got private_gradient, which "
            "clips each example's; use scaling='current'"
        )
    model = _delayed(recipe.model, mask, history)
    return recipe._replace(model=model, gradient=_with_histories(recipe.gradient))


def _current(model: Model, mask: Mask | None) -> Model:
    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        entries: Entries = dict.fromkeys(_products(model, mask, params, model_state, x), {})
        return model.apply(_with(entries, params), model_state, x, key=key, train=train)

    return Model(init=model.init, apply=apply)


def _delayed(model: Model, mask: Mask | None, history: int) -> Model:
    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        params, state = model.init(key, x)
        found = _products(model, mask, params, state, x)
        # A stack of layers has a history for each.
        histories = {
            path: jnp.zeros((*leading, len(ROLES), history)) for path, leading in found.items()
        }
        return params, {"model": state, FP8: histories}

    def apply(
        params: Params, model_state: ModelState, x: Any, *, key: Any = None, train: bool = False
    ) -> tuple[Any, ModelState]:
        entries = model_state[FP8]
        y, state = model.apply(
            _with(entries, params), model_state["model"], x, key=key, train=train
        )
        return y, {"model": state, FP8: entries}

    return Model(init=init, apply=apply)


def _with_histories(gradient: Gradient) -> Gradient:
    """A gradient that also updates the histories, which get their magnitudes as cotangents."""

    def of_batch(
        loss: BatchLoss, params: Params, model_state: ModelState, batch: Pair, key: PRNGKey
    ) -> tuple[LossSums, Params]:
        def of_both(both: Any, model_state: ModelState, batch: Pair, key: PRNGKey) -> Any:
            return loss(both["params"], {**model_state, FP8: both[FP8]}, batch, key)

        old = model_state[FP8]
        sums, grads = gradient(of_both, {"params": params, FP8: old}, model_state, batch, key)
        new = jax.tree.map(_extended, old, grads[FP8])
        return sums._replace(model_state={**sums.model_state, FP8: new}), grads["params"]

    return of_batch


def _extended(history: Array, noted: Array) -> Array:
    """The history with the mean magnitudes of this step in front."""
    latest = noted[..., :1] / jnp.maximum(noted[..., 1:2], 1)
    return jnp.concatenate([latest.astype(history.dtype), history[..., :-1]], axis=-1)


def _products(
    model: Model, mask: Mask | None, params: Params, model_state: ModelState, x: Any
) -> dict[str, tuple[int, ...]]:
    """The paths of the layers that multiply by their kernels, with the axes of a stack of them."""
    shapes = {path: kernel.shape for path, kernel in _kernels(params)}
    if mask is not None:
        wanted = dict(_kernels(mask(params)))
        shapes = {path: shape for path, shape in shapes.items() if wanted[path]}
    seen: dict[str, int] = {}
    watched = _with({path: Watched(path, seen) for path in shapes}, params)
    jax.eval_shape(lambda p, s, x: model.apply(p, s, x)[0], watched, model_state, x)
    if not seen:
        raise ValueError(
            "fp8: expected a model with linear layers or attention, got none of their kernels "
            f"among {list(shapes)}; use nn.linear or layers.linear, or change the mask"
        )
    return {path: shapes[path][: len(shapes[path]) - axes] for path, axes in seen.items()}


def _kernels(params: Params, path: str = "") -> list[tuple[str, Any]]:
    """The kernels of a tree, by the path of the dictionary that holds them."""
    found = [(path, params["kernel"])] if _is_layer(params) else []
    for name, part in _parts(params):
        found += _kernels(part, f"{path}/{name}" if path else str(name))
    return found


def _with(entries: Entries, params: Params, path: str = "") -> Params:
    """The parameters with an entry beside the kernel of each layer that has one."""
    parts = {
        name: _with(entries, part, f"{path}/{name}" if path else str(name))
        for name, part in _parts(params)
    }
    if isinstance(params, dict):
        own = {FP8: entries[path]} if path in entries and _is_layer(params) else {}
        return {**params, **parts, **own}
    if isinstance(params, (list, tuple)):
        return type(params)(parts.values())
    return params


def _is_layer(params: Params) -> bool:
    return (
        isinstance(params, dict) and "kernel" in params and not isinstance(params["kernel"], dict)
    )


def _parts(params: Params) -> list[tuple[Any, Any]]:
    if isinstance(params, dict):
        return list(params.items())
    return list(enumerate(params)) if isinstance(params, (list, tuple)) else []
