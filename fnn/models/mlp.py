"""The multi-layer perceptron. B batch, I inputs, W width, O outputs."""

from collections.abc import Callable
from dataclasses import dataclass

from fnn.activations import relu
from fnn.arguments import check_exports
from fnn.expect import within
from fnn.initializers import Initializer, he_normal, lecun_normal
from fnn.nn import Layer, dropout, linear, sequential
from fnn.types import Model, Scalar

__all__ = ["MLPConfig", "mlp"]


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """What fixes the shapes and the parts of an MLP."""

    widths: tuple[int, ...] = (128,)  # W of each hidden layer
    out_features: int  # O
    activation: Layer = relu
    norm: Callable[[], Model] | None = None  # between the linear map and the activation
    kernel_init: Initializer = he_normal()  # of the hidden layers
    head_init: Initializer = lecun_normal()  # no activation follows the head


@within(rate="[0, 1]")
def mlp(config: MLPConfig, *, rate: Scalar = 0.0) -> Model:
    """Hidden layers of linear map, norm, activation and dropout, then a linear head.

    Args:
      config: shapes and parts.
      rate: drop probability after each activation; may be traced.

    Apply takes x (B, I) and returns (B, O). Parameters:
    {'hidden': [{'linear': ..., 'norm': ..., ...}], 'head': {'kernel', 'bias'}}.

    >>> model = mlp(MLPConfig(widths=(8, 8), out_features=3))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    >>> params['head']['kernel'].shape
    (8, 3)
    """
    head = linear(config.out_features, kernel_init=config.head_init)
    # One model for each width, so that `sequential` may initialize equal layers in one loop.
    of_width = {width: _hidden(config, width, rate) for width in config.widths}
    hidden = [of_width[width] for width in config.widths]  # (B, I) -> (B, W)
    body = {"hidden": sequential(*hidden)} if hidden else {}
    model = sequential(**body, head=head)  # (B, I) -> (B, O)

    def init(key, x):
        if len(x.shape) != 2:
            raise ValueError(
                f"mlp: expected x of shape (batch, features), got {x.shape}; "
                "put nn.flatten() in front"
            )
        return model.init(key, x)

    return Model(init=init, apply=model.apply)


def _hidden(config: MLPConfig, width: int, rate: Scalar) -> Model:
    # Before a norm a bias has no effect: the norm subtracts it again.
    hidden = linear(width, bias=config.norm is None, kernel_init=config.kernel_init)
    norm = {"norm": config.norm()} if config.norm else {}
    return sequential(linear=hidden, **norm, activation=config.activation, dropout=dropout(rate))


check_exports(__name__)
