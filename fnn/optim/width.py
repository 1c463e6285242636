"""Learning rates that fall with the width of a model, so that one rate serves all widths."""

import math
from typing import Any

import jax.numpy as jnp

from fnn import tree
from fnn.types import Objective, Optimizer, Params


def scaled_for_width(optimizer: Optimizer, base: Params) -> Optimizer:
    """Updates of kernels divided by how many times more inputs they have than in a narrower model.

        update(kernel) <- fan_in(base kernel) / fan_in(kernel) update(kernel)

    What is no kernel, and kernels of as many inputs as in the base, are left as they are. With the
    initial values of `models.mup_mlp` or `models.mup_gpt`, the lr that is best for the base is so
    for every width.

    Args:
      optimizer: one whose updates do not grow with the gradient: adam, adamw, lion and the like.
        Decoupled decay shrinks with the rest. No schedule-free one, whose state has the weights.
      base: the parameters of a narrow model of the same structure; arrays or ShapeDtypeStructs,
        such as `jax.eval_shape(mlp(config).init, key, x)[0]`.

    State: the optimizer's.
    Raises: ValueError, in update, if base and params differ in structure, or if it cannot be told
      which axes of a kernel are its inputs.
    Source: Yang et al. 2022, arXiv:2203.03466, table 3 (Adam).

    >>> from fnn.optim import sign_sgd
    >>> base = {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}
    >>> wide = {'kernel': jnp.ones((8, 6)), 'bias': jnp.ones(6)}
    >>> updates, _ = scaled_for_width(sign_sgd(), base).update(wide, (), wide, 1.0)
    >>> updates['kernel'][0, 0].item(), updates['bias'][0].item()
    (-0.25, -1.0)
    """

    def update(
        grads: Params, state: Any, params: Params, lr: Any, objective: Objective | None = None
    ) -> tuple[Params, Any]:
        _expect_same_paths(base, params)
        updates, state = optimizer.update(grads, state, params, lr, objective)

        def shrink(path: str, u: Any, narrow: Any) -> Any:
            return u / jnp.asarray(more_inputs(path, narrow.shape, u.shape), u.dtype)

        return tree.map_with_path(shrink, updates, base), state

    return optimizer._replace(update=update)


def more_inputs(path: str, base: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """How many times more inputs a leaf has than in the base; 1 for what is no kernel.

    The first axes of a kernel that differ are its inputs and the last its outputs, as in
    (window, in, out), (in, heads, features) and (heads, features, out).

    Raises: ValueError where that leaves it open.

    >>> more_inputs('out/kernel', (2, 8, 16), (4, 16, 64)), more_inputs('bias', (2,), (8,))
    (4.0, 1.0)
    """
    if path.rpartition("/")[2] != "kernel" or len(base) != len(shape):
        return 1.0
    ratios = [n / m for n, m in zip(shape, base, strict=True)]
    grown = [r for r in ratios if r != 1]
    if not grown or (len(grown) == 1 and ratios[-1] != 1):
        return 1.0
    if len(grown) == 1:
        return grown[0]
    for cut in range(1, len(grown)):
        # A model that is wider in the same proportion everywhere has as many times more of both.
        if math.isclose(math.prod(grown[:cut]), math.prod(grown[cut:])):
            return math.prod(grown[:cut])
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
