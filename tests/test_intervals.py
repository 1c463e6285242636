"""Hyperparameters outside their documented intervals are refused where they are known."""

import importlib
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn import layers, losses, nn, optim, schedules
from fnn.expect import expect_within, within
from fnn.train import check
from tests.test_arguments import arguments_of, call, kinds_of
from tests.test_registry import PARTS, public_functions
from tests.tiny import BATCH, DATA, HYPER, KEY, recipe

MODULES = [*PARTS, "data.augment", "train", "diagnose", "generate"]


def _functions():
    for part in MODULES:
        module = importlib.import_module(f"fnn.{part}")
        for name in sorted(public_functions(part)):
            if inspect.isfunction(function := getattr(module, name)):
                yield f"{part}.{name}", function


FUNCTIONS = dict(_functions())
CASES = [
    (name, argument, interval)
    for name, function in FUNCTIONS.items()
    for argument, interval in getattr(function, "intervals", {}).items()
]


def outside(interval: str) -> list[float]:
    """Values on both sides of an interval, its open ends, and NaN."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    values = [low - 1, float("nan")] + ([high + 1] if np.isfinite(high) else [])
    ends = [low] * (interval[0] == "(") + [high] * (interval[-1] == ")")
    return values + ends


def inside(interval: str) -> float:
    low, high = (float(end) for end in interval[1:-1].split(","))
    return (low + min(high, low + 2)) / 2


@pytest.mark.parametrize(
    ("name", "argument", "interval"), CASES, ids=[f"{n}-{a}" for n, a, _ in CASES]
)
def test_what_is_outside_is_refused_in_every_form(name, argument, interval):
    function = FUNCTIONS[name]
    message = re.escape(f"{function.__name__}: expected {argument} ")
    values, others = outside(interval), arguments_of(function, kinds_of(function))
    others = {
        n: inside(function.intervals[n]) if n in function.intervals else v
        for n, v in others.items()
    }
    for value in [*values, np.float32(values[0]), jnp.float32(values[-1])]:
        with pytest.raises(
            ValueError, match=rf"{message}(in {re.escape(interval)}|to be .*), got "
        ):
            call(function, others | {argument: value})


def documented(function) -> dict[str, str]:
    """The arguments that are numbers, and the interval that the docstring names for each."""
    numbers = {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if re.fullmatch(r"(Scalar|float)( \| None)?", _annotation(parameter))
    }
    found = {}
    for line in re.split(r"\n(?=  \w)", _arguments(inspect.getdoc(function) or "")):
        names, _, text = line.partition(":")
        for pattern, interval in BOUNDS:
            if match := re.search(pattern, " ".join(text.split()).split("; ")[0]):
                for name in numbers & {part.strip() for part in names.split(",")}:
                    found.setdefault(name, interval or match.group(1))
    return found


BOUNDS = [
    (r"in ([\[(]\d, ?\d[\])])", None),
    (r"\b(?:of )?at least (?:0)\b", "[0, inf)"),
    (r"\bat least (?:1)\b", "[1, inf)"),
    (r"(?:^|, |\.)\s*above 0\b", "(0, inf)"),
    (r"^ ?positive\b", "(0, inf)"),
]


def _annotation(parameter) -> str:
    text = parameter.annotation
    text = text if isinstance(text, str) else getattr(text, "__name__", str(text))
    return SCALAR if parameter.annotation == _SCALAR else text


_SCALAR = inspect.signature(optim.adamw).parameters["weight_decay"].annotation
SCALAR = "Scalar"


def _arguments(doc: str) -> str:
    match = re.search(r"Args:\n(.*?)(?:\n\n|\n(?=\w))", doc, re.S)
    return match.group(1) if match else ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_documented_interval_is_checked(name):
    function = FUNCTIONS[name]
    intervals = getattr(function, "intervals", {})
    for argument, interval in documented(function).items():
        assert argument in intervals, f"{name}: add {argument}={interval!r} to its `within`"
        checked = intervals[argument].replace("inf]", "inf)")
        assert checked == interval, f"{name}: {argument} is documented otherwise than it is checked"


def test_the_documented_intervals_are_found():
    assert documented(optim.adam) == {"b1": "[0, 1)", "b2": "[0, 1)"}
    assert documented(optim.add_l2) == {"l2": "[0, inf)"}
    assert documented(schedules.cosine) == {"total_steps": "(0, inf)"}
    assert len(CASES) > 200


def test_tracers_and_the_ends_of_closed_intervals_pass():
    @within(rate="[0, 1]")
    def same(rate):
        return rate

    assert same(0.0) == 0 and same(1) == 1 and same(None) is None
    assert jax.jit(same)(2.0) == 2
    assert jax.vmap(lambda d: optim.adamw(weight_decay=d) and d)(jnp.array([-1.0])) == -1
    expect_within("f: expected x", "(0, inf]", np.inf)


def test_the_first_entry_outside_is_named():
    with pytest.raises(ValueError, match="got -2.0;"):
        expect_within("f: expected x", "[0, inf)", jnp.array([1.0, -2.0, -3.0]))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight_decay", -1.0, r"adamw: expected weight_decay in \[0, inf\), got -1"),
        ("rate", 1.5, r"mlp: expected rate in \[0, 1\], got 1.5"),
        ("warmup_steps", 50.0, r"warmup_cosine: expected warmup_steps below total_steps, got 50"),
        ("warmup_steps", -1.0, r"warmup_cosine: expected warmup_steps in \[0, inf\), got -1"),
    ],
)
@pytest.mark.parametrize("form", [float, jnp.float32])
def test_check_refuses_a_hyperparameter_outside_before_training(name, value, message, form):
    hyper = HYPER | {name: form(value)}
    with pytest.raises(ValueError, match=message):
        check(recipe, DATA, key=KEY, hyper=hyper, batch_size=BATCH)


ORDERS = {
    "warmup_cosine": lambda w, t: schedules.warmup_cosine(1.0, warmup_steps=w, total_steps=t),
    "warmup_linear": lambda w, t: schedules.warmup_linear(1.0, warmup_steps=w, total_steps=t),
    "warmup_stable_decay": lambda w, t: schedules.warmup_stable_decay(
        1.0, warmup_steps=w, cooldown_steps=1, total_steps=t
    ),
    "warmup_stable_sqrt_decay": lambda w, t: schedules.warmup_stable_sqrt_decay(
        1.0, warmup_steps=w, cooldown_steps=1, total_steps=t
    ),
    "piecewise_linear": lambda w, t: schedules.piecewise_linear([1.0, 2.0], steps=[w, t]),
    "piecewise_cosine": lambda w, t: schedules.piecewise_cosine([1.0, 2.0], steps=[w, t]),
    "piecewise_constant": lambda w, t: schedules.piecewise_constant(
        [1.0, 2.0, 3.0], boundaries=[w, t]
    ),
    "join": lambda w, t: schedules.join([schedules.constant(1.0)] * 3, boundaries=[w, t]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_lengths_in_the_wrong_order_are_refused(name):
    for form in (int, jnp.float32):
        with pytest.raises(ValueError, match=f"{name}: expected .* got"):
            ORDERS[name](form(20), form(10))
    ORDERS[name](5, 10)
    assert jax.jit(lambda w: ORDERS[name](w, 10)(3))(20).shape == ()


def test_a_line_search_with_its_numbers_exchanged():
    with pytest.raises(ValueError, match="wolfe: expected decrease below curvature, got 0.4"):
        optim.wolfe(decrease=0.4, curvature=0.1)


def test_what_the_layers_and_losses_check_when_they_are_called():
    x = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="dropout: expected rate in"):
        layers.dropout(KEY, x, jnp.float32(1.5))
    with pytest.raises(ValueError, match="cross_entropy: expected label_smoothing in"):
        losses.cross_entropy(x, jnp.zeros(3, jnp.int32), label_smoothing=-0.1)
    with pytest.raises(ValueError, match="dropout: expected rate in"):
        nn.dropout(-0.5)
