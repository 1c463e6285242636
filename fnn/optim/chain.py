"""Transforms in front of an optimizer."""

from typing import Any

from fnn.advice import advice, refuse
from fnn.types import Optimizer, Transform, unscaled


def chain(*parts: Transform | Optimizer) -> Any:
    """Transforms one after another, with an optimizer as the last part or none.

    Returns: an Optimizer if the last part is one, else a Transform.
    State: a tuple with the state of each part.
    Raises: ValueError if there is no part, or an optimizer before the end.

    >>> from fnn.optim import clip_by_value, sgd
    >>> opt, params = chain(clip_by_value(1.0), sgd()), {'w': jnp.zeros(1)}
    >>> opt.update({'w': jnp.array([3.0])}, opt.init(params), params, 0.5)[0]['w'].tolist()
    [-0.5]
    """
    if not parts or any(not isinstance(part, Transform) for part in parts[:-1]):
        raise ValueError(
            "chain: expected transforms, then at most one optimizer at the end, got "
            f"{[type(part).__name__ for part in parts]}; move the optimizer to the end"
        )
    if not isinstance(parts[-1], (Transform, Optimizer)):
        words = "transforms, then at most one optimizer"
        refuse("chain", words, parts[-1], advice(parts[-1], Optimizer))

    def init(params):
        return tuple(part.init(params) for part in parts)

    def through(grads, state, params, last_arguments):
        states = []
        for i, part in enumerate(parts):
            extra = last_arguments if i == len(parts) - 1 else ()
            grads, part_state = part.update(grads, state[i], params, *extra)
            states.append(part_state)
        return grads, tuple(states)

    last = parts[-1]
    if isinstance(last, Optimizer):
        scale = last.loss_scale
        return last._replace(
            init=init,
            update=lambda g, s, p, lr, objective=None: through(g, s, p, (lr, objective)),
            weights=lambda state, params: last.weights(state[-1], params),
            loss_scale=unscaled if scale is unscaled else lambda state: scale(state[-1]),
        )
    return Transform(init, lambda g, s, p: through(g, s, p, ()))
