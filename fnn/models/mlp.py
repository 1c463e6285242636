"""The multi-layer perceptron. B batch, I inputs, W width, O outputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fnn import nn
from fnn._arguments import check_exports
from fnn.activations import relu
from fnn.expect import within
from fnn.initializers import Initializer, he_normal, lecun_normal
from fnn.models._common import expect_features
from fnn.types import Model, ModelState, Params, PRNGKey, Scalar

__all__ = ["MLPConfig", "mlp"]


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Shapes and layers of an MLP."""

    widths: tuple[int, ...] = (128,)  # W of each hidden layer
    out_features: int  # O
    activation: nn.Layer = relu
    norm: Callable[[], Model] | None = None  # between the linear layer and the activation
    kernel_init: Initializer = he_normal()  # of the hidden layers
    head_init: Initializer = lecun_normal()  # no activation follows the head


@within(rate="[0, 1]")
def mlp(config: MLPConfig, *, rate: Scalar = 0.0) -> Model:
    """Hidden layers (linear, norm, activation, dropout), then a linear head.

    Args:
      config: shapes and layers.
      rate: dropout rate after each activation; may be traced.

    Apply takes x (B, I) and returns (B, O). Parameters:
    {'hidden': [{'linear': ..., 'norm': ...}, ...], 'head': {'kernel', 'bias'}}.
    Raises: ValueError in init for x of another shape.

    >>> model = mlp(MLPConfig(widths=(8, 8), out_features=3))
    >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    >>> params['head']['kernel'].shape
    (8, 3)
    """
    # One Model for each width: `sequential` initializes equal layers in one loop.
    layers = {width: _hidden(config, width, rate) for width in config.widths}
    hidden = [layers[width] for width in config.widths]  # (B, I) -> (B, W)
    body = {"hidden": nn.sequential(*hidden)} if hidden else {}
    head = nn.linear(config.out_features, kernel_init=config.head_init)
    model = nn.sequential(**body, head=head)  # (B, I) -> (B, O)

    def init(key: PRNGKey, x: Any) -> tuple[Params, ModelState]:
        expect_features("mlp", x)
        return model.init(key, x)

    return Model(init=init, apply=model.apply)


def _hidden(config: MLPConfig, width: int, rate: Scalar) -> Model:
    # A norm subtracts the bias again.
    layer = nn.linear(width, bias=config.norm is None, kernel_init=config.kernel_init)
    norm = {"norm": config.norm()} if config.norm else {}
    return nn.sequential(
        linear=layer, **norm, activation=config.activation, dropout=nn.dropout(rate)
    )


check_exports(__name__)
