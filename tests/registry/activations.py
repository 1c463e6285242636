"""Rows of the activations, with and without parameters."""

from fnn import activations, nn
from fnn.nn import lift
from tests.registry.rows import FunctionRow, ModelRow, normal

FUNCTIONS = [
    FunctionRow(name="relu6", function=lambda x: activations.relu6(4 * x)),
    FunctionRow(name="squared_relu", function=activations.squared_relu),
    FunctionRow(name="leaky_relu", function=activations.leaky_relu),
    FunctionRow(name="elu", function=activations.elu),
    FunctionRow(name="elu to -2", function=lambda x: activations.elu(x, 2.0)),
    FunctionRow(name="celu", function=lambda x: activations.celu(x, 0.5)),
    FunctionRow(name="selu", function=activations.selu),
    FunctionRow(name="gelu_tanh", function=activations.gelu_tanh),
    FunctionRow(name="silu", function=activations.silu),
    FunctionRow(name="mish", function=activations.mish),
    FunctionRow(name="softplus", function=activations.softplus),
    FunctionRow(name="softsign", function=activations.softsign),
    FunctionRow(name="log_sigmoid", function=activations.log_sigmoid),
    FunctionRow(name="hard_tanh", function=activations.hard_tanh),
    FunctionRow(name="hard_sigmoid", function=lambda x: activations.hard_sigmoid(2 * x)),
    FunctionRow(name="hard_silu", function=lambda x: activations.hard_silu(2 * x)),
    FunctionRow(name="snake", function=lambda x: activations.snake(x, 2.0)),
    FunctionRow(name="log_softmax", function=activations.log_softmax, elementwise=False),
    FunctionRow(name="sparsemax", function=activations.sparsemax, elementwise=False),
]

MODELS = [
    ModelRow(name="glu", make=lambda: lift(activations.glu), x=normal(4, 6)),
    ModelRow(name="prelu", make=nn.prelu, x=normal(4, 3)),
    ModelRow(name="prelu of images", make=lambda: nn.prelu(slope=0.1), x=normal(3, 2, 2, 4)),
    ModelRow(name="snake", make=lambda: nn.snake(frequency=2.0), x=normal(4, 3)),
]
