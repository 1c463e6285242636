"""Learning rates per layer: layer-wise decay by depth, muP by width."""

import fnmatch
import math
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from fnn import tree
from fnn.expect import within
from fnn.optim._wrap import map_updates
from fnn.types import Optimizer, Params, Scalar

DepthOf = Callable[[str], int | None]  # path -> depth of a leaf from the input; None is the top


@within(decay="(0, 1]")
def layerwise_lr_decay(optimizer: Optimizer, decay: Scalar, depth_of: DepthOf) -> Optimizer:
    """Layer-wise lr decay for fine-tuning: updates shrink by a factor per layer from the top.

        update(leaf) <- decay^(D - depth(leaf)) update(leaf),   D the largest depth

    Args:
      decay: ratio of the lr of a layer to that of the layer above, in (0, 1]; 0.65 to 0.9 for
        transformers.
      depth_of: the depth of a leaf from its path; None for leaves above all layers (the head),
        which train at the full lr. `depth_by_number` makes one.

    State: the optimizer's.
    Raises: ValueError, in update, if no leaf has a depth.
    Source: Howard & Ruder 2018, arXiv:1801.06146, section 3.2 (discriminative fine-tuning); in
      this form Clark et al. 2020, arXiv:2003.10555, appendix B. The optimizer's own weight decay
      shrinks too.

    >>> from fnn.optim import sgd
    >>> opt = layerwise_lr_decay(sgd(), 0.5, depth_by_number('embed'))
    >>> params = {'embed': jnp.ones(()), 'head': jnp.ones(()), 'layers': [jnp.ones(())] * 2}
    >>> jax.tree.map(float, opt.update(params, opt.init(params), params, 1.0)[0])
    {'embed': -0.125, 'head': -1.0, 'layers': [-0.25, -0.5]}
    """

    def shrink(updates: Params, grads: Params, params: Params, lr: Any) -> Params:
        above = _layers_above(tree.paths(params), depth_of)
        return tree.map_with_path(
            lambda path, u: jnp.asarray(decay, u.dtype) ** above[path] * u, updates
        )

    return map_updates(optimizer, shrink)


def depth_by_number(*bottom: str) -> DepthOf:
    """Depths from the first number in a path: 'layers/3/kernel' has depth 4.

    Args:
      bottom: patterns of the leaves below all layers, such as '*embedding*': depth 0.

    Returns: a function that gives None for the paths without a number: they are the top.

    >>> [depth_by_number('embed*')(path) for path in ('embed/table', 'layers/3/kernel', 'head')]
    [0, 4, None]
    """

    def depth_of(path: str) -> int | None:
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in bottom):
            return 0
        number = re.search(r"(?:^|/)(\d+)(?:/|$)", path)
        return None if number is None else int(number[1]) + 1

    return depth_of


def _layers_above(paths: list[str], depth_of: DepthOf) -> dict[str, int]:
    depths = {path: depth_of(path) for path in paths}
    known = [depth for depth in depths.values() if depth is not None]
    if not known:
        raise ValueError(
            f"layerwise_lr_decay: expected a depth for some leaf, got None for each of {paths}; "
            "return the number of the layer from depth_of"
        )
    top = max(known) + (len(known) < len(depths))
    return {path: 0 if depth is None else top - depth for path, depth in depths.items()}


def scaled_for_width(optimizer: Optimizer, base: Params) -> Optimizer:
    """muP's updates: divided by the ratio of a kernel's inputs to those in a narrower model.

        update(kernel) <- fan_in(base kernel) / fan_in(kernel) update(kernel)

    Other leaves, and kernels with as many inputs as in the base, are unchanged. With the initial
    values of `mup_mlp` or `mup_gpt` (`fnn.models.mup`), the best lr of the base is the best for
    every width.

    Args:
      optimizer: one whose updates do not grow with the gradient: adam, adamw, lion and the like.
        Its decoupled decay shrinks too. Schedule-free optimizers, whose state has the weights, do
        not work.
      base: the parameters of a narrow model of the same structure; arrays or ShapeDtypeStructs,
        such as `jax.eval_shape(mlp(config).init, key, x)[0]`.

    State: the optimizer's.
    Raises: ValueError, in update, if base and params differ in structure, or if the input axes of a
      kernel are ambiguous.
    Source: Yang et al. 2022, arXiv:2203.03466, table 3 (Adam).

    >>> from fnn.optim import sign_sgd
    >>> base = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
    >>> wide = {'kernel': jnp.ones((8, 6)), 'bias': jnp.ones(6)}
    >>> updates, _ = scaled_for_width(sign_sgd(), base).update(wide, (), wide, 1.0)
    >>> updates['kernel'][0, 0].item(), updates['bias'][0].item()
    (-0.25, -1.0)
    """

    def shrink(updates: Params, grads: Params, params: Params, lr: Any) -> Params:
        _expect_same_paths(base, params)

        def leaf(path: str, u: Array, narrow: Any) -> Array:
            return u / jnp.asarray(_inputs_ratio(path, narrow.shape, u.shape), u.dtype)

        return tree.map_with_path(leaf, updates, base)

    return map_updates(optimizer, shrink)


def _inputs_ratio(path: str, base: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """The ratio of a kernel's inputs to those in the base; 1 for other leaves."""
    # The first axes that differ are inputs and the last ones outputs, as in (window, in, out),
    # (in, heads, features) and (heads, features, out).
    if path.rpartition("/")[2] != "kernel" or len(base) != len(shape):
        return 1.0
    ratios = [n / m for n, m in zip(shape, base, strict=True)]
    grown = [r for r in ratios if r != 1]
    if not grown or (len(grown) == 1 and ratios[-1] != 1):
        return 1.0
    if len(grown) == 1:
        return grown[0]
    for split in range(1, len(grown)):
        # A model that is wider everywhere by one factor has inputs and outputs of equal ratios.
        if math.isclose(math.prod(grown[:split]), math.prod(grown[split:])):
            return math.prod(grown[:split])
    if len(grown) == 2:
        return grown[0]
    raise ValueError(
        f"scaled_for_width: expected inputs and outputs of {path!r} to grow alike, got {base} in "
        f"the base and {shape}; widen all parts of the model by the same factor"
    )


def _expect_same_paths(base: Params, params: Params) -> None:
    names, wanted = tree.paths(base), tree.paths(params)
    if names != wanted:
        only = sorted(set(names) ^ set(wanted))
        raise ValueError(
            f"scaled_for_width: expected base to have the leaves of params, got {only} in one of "
            "them alone; make both with the same number of layers"
        )
