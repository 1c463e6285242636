"""Every public function refuses arguments of another kind than its annotations say."""

import importlib
import inspect
import math
import pickle
import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from fnn import models, nn, optim
from fnn._arguments import checked, kind_of
from fnn.types import Data, Decoder, Metric, Optimizer, Scalar, TrainState, Transform

PACKAGES = [
    "data.augment", "diagnose", "generate", "initializers", "initializers.presets",
    "layers", "losses", "metrics", "nn", "optim", "optim.contrib", "order", "schedules",
    "train", "train.sweeps.search", *(f"models.{name}" for name in models.__all__),
]  # fmt: skip
KEY = jax.random.key(0)
X = np.ones((2, 3), np.float32)
STATE = TrainState(step=jnp.int32(0), params={}, model_state=(), opt_state=())
CANDIDATES = [
    2, 0.5, True, "a", print, optim.sgd(), nn.linear(2), KEY, X, X.astype(np.int32), X > 0,
    Metric(print, print), Decoder(print, print), Data(train=(X, X), valid=(X, X)), STATE,
    Transform(print, print), (2,), (0.5,), {}, (), None, jnp.float32(1), jnp.int32(1),
]  # fmt: skip
CANDIDATES += [
    object.__new__(kind)
    for name in models.__all__
    for kind in vars(getattr(models, name)).values()
    if inspect.isclass(kind) and kind.__name__.endswith("Config")
]
WRONG = ["half", "3", None, 2.5, math.nan, -3, 0, True, [], {}, np.ones(3, np.float32), object(),
         jax.ShapeDtypeStruct((3,), bool)]  # fmt: skip


@pytest.fixture(autouse=True)
def without_shape_hook():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def public(package):
    """The functions and configs of a package, by name."""
    home = f"fnn.{package}"
    found = {}
    module = importlib.import_module(home)
    exported = getattr(module, "__all__", vars(module))
    for name, value in vars(module).items():
        ours = (getattr(value, "__module__", None) or "").startswith(home)
        if name.startswith("_") or not ours or name not in exported:
            continue
        if inspect.isfunction(value):
            found[name] = value
        elif inspect.isclass(value) and name.endswith("Config"):
            found[name] = value.__init__
    return found


def kinds_of(function):
    """The kinds that a function checks, by argument."""
    while function is not None and "kinds" not in vars(function):
        function = getattr(function, "__wrapped__", None)
    return {} if function is None else vars(function)["kinds"]


def fitting(kind):
    """A value that a kind admits."""
    return next(value for value in CANDIDATES if kind.admits(value))


def arguments_of(function, kinds):
    """Fitting values of all arguments that have no default."""
    required = {
        name: p
        for name, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    return {name: fitting(kinds[name]) if name in kinds else None for name in required}


def call(function, values):
    parameters = inspect.signature(function).parameters
    only = [name for name in values if parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY]
    rest = {name: value for name, value in values.items() if name not in only}
    return function(*[values[name] for name in only], **rest)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("package", PACKAGES)
def test_an_argument_of_another_kind_is_refused_in_one_sentence(package):
    tried = 0
    for name, function in public(package).items():
        kinds = kinds_of(function)
        for argument, kind in kinds.items():
            default = inspect.signature(function).parameters[argument].default
            for wrong in WRONG:
                if kind.admits(wrong) or wrong is default:
                    continue
                with pytest.raises(ValueError) as raised:
                    call(function, arguments_of(function, kinds) | {argument: wrong})
                message = str(raised.value)
                assert re.match(rf"(search\.)?{name}: expected {argument} to be ", message), message
                assert ", got " in message and "; " in message and len(message) <= 300, message
                tried += 1
    no_arguments = ["initializers.presets", "models.transformer"]
    assert tried > 5 or package in no_arguments


@pytest.mark.parametrize("package", PACKAGES)
def test_every_argument_that_is_a_number_is_checked(package):
    for name, function in public(package).items():
        for argument, parameter in inspect.signature(function).parameters.items():
            simple = parameter.annotation in (int, float, bool, Scalar, Scalar | None, int | None)
            variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            assert not simple or variadic or argument in kinds_of(function), (name, argument)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_defaults_are_of_their_kind(package):
    for name, function in public(package).items():
        for argument, kind in kinds_of(function).items():
            default = inspect.signature(function).parameters[argument].default
            assert default is inspect.Parameter.empty or kind.admits(default), (name, argument)


def test_a_traced_number_is_a_number_and_no_count():
    @checked
    def layer(rate: Scalar, features: int = 1): ...

    jax.jit(lambda rate: layer(rate))(0.5)
    jax.vmap(lambda rate: layer(rate))(jnp.ones(3))
    with pytest.raises(ValueError, match=r"layer: expected features .* got a traced int32\[\]; "):
        jax.jit(lambda n: layer(0.5, n))(3)


def test_numbers_of_numpy_and_jax_are_numbers():
    for value in (1, 0.5, np.float32(1), np.int64(1), np.ones(()), jnp.ones(()), jnp.int32(1)):
        assert kind_of(Scalar).admits(value)
    for value in (np.int32(3), 3):
        assert kind_of(int, 1).admits(value)
    assert not kind_of(int, 1).admits(np.float32(3))


def test_a_function_that_checks_is_the_one_in_its_file():
    assert pickle.loads(pickle.dumps(nn.linear)) is nn.linear
    assert inspect.signature(optim.adam).return_annotation is Optimizer


def test_a_function_without_kinds_is_left_as_it_is():
    def plain(x, *rest): ...

    assert checked(plain) is plain
