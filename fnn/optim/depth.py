"""Learning rates that fall from the last layer of a model to its first."""

import fnmatch
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from fnn import tree
from fnn.expect import within
from fnn.types import Objective, Optimizer, Params, Scalar

DepthOf = Callable[[str], int | None]  # path -> how far a leaf is from the input; None is the top


@within(decay="(0, 1]")
def layerwise_lr_decay(optimizer: Optimizer, decay: Scalar, depth_of: DepthOf) -> Optimizer:
    """Updates that shrink by a factor with each layer from the top: to fine-tune a trained model.

        update(leaf) <- decay^(D - depth(leaf)) update(leaf),   D the largest depth

    Args:
      decay: share of the lr that the layer below keeps, in (0, 1]; 0.65 to 0.9 for transformers.
      depth_of: the depth of a leaf from its path; None for a leaf above all that have a depth
        (the head), which trains at the full lr. `depth_by_number` makes one.

    State: the optimizer's.
    Raises: ValueError, in update, if no leaf has a depth.
    Source: Howard & Ruder 2018, arXiv:1801.06146, section 3.2 (discriminative fine-tuning); in
      this form Clark et al. 2020, arXiv:2003.10555, appendix B. The optimizer's own weight decay
      shrinks with the rest.

    >>> from fnn.optim import sgd
    >>> opt = layerwise_lr_decay(sgd(), 0.5, depth_by_number('embed'))
    >>> params = {'embed': jnp.ones(()), 'head': jnp.ones(()), 'layers': [jnp.ones(())] * 2}
    >>> jax.tree.map(float, opt.update(params, opt.init(params), params, 1.0)[0])
    {'embed': -0.125, 'head': -1.0, 'layers': [-0.25, -0.5]}
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        updates, state = optimizer.update(grads, state, params, lr, objective)
        below = _layers_above(tree.paths(params), depth_of)

        def shrink(path: str, u: Any) -> Any:
            return jnp.asarray(decay, u.dtype) ** below[path] * u

        return tree.map_with_path(shrink, updates), state

    return optimizer._replace(update=update)


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
