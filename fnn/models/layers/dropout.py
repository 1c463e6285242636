"""Dropout layers as models: active for train=True only, where they need a key."""

from fnn import layers
from fnn.types import Model, Scalar


def dropout(rate: Scalar) -> Model:
    """Dropout as a model: active for train=True only, where it needs a key.

    Args:
      rate: drop probability in [0, 1]; may be traced. A plain 0 leaves the layer out.

    Raises: ValueError for train=True without a key.

    >>> dropout(0.5).apply({}, (), jnp.ones((1, 2)))[0].tolist()
    [[1.0, 1.0]]
    """

    def apply(params, model_state, x, *, key=None, train=False):
        if not train or (isinstance(rate, (int, float)) and rate == 0):
            return x, model_state
        if key is None:
            raise ValueError(
                "dropout: expected a key with train=True, got None; pass key= to the model's apply"
            )
        return layers.dropout(key, x, rate), model_state

    return Model(init=lambda key, x: ({}, ()), apply=apply)
