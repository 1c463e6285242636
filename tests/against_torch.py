"""One comparison for all functions: outputs and gradients against torch in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# float32 keeps seven digits, and the functions that are compared lose at most two of them to sums
# and cancellation; float64 keeps sixteen. Both are shares of the largest entry.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-10}

drawn = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)


def ordinary(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numbers(*shape: int, size: float = 20.0, seed: int = 0) -> st.SearchStrategy:
    """Arrays of float32 numbers in +-size, of which the first row is an ordinary one.

    That row keeps the largest output at about 1. Without it, hypothesis draws arrays where every
    output underflows or cancels, and a share of the largest entry means nothing.
    """
    elements = st.floats(-size, size, width=32, allow_subnormal=False)
    row = ordinary(1, *shape[1:], seed=seed)
    rest = arrays(np.float32, (shape[0] - 1, *shape[1:]), elements=elements)
    return rest.map(lambda rows: np.concatenate([row, rows]))


def integers(*shape: int, below: int, start: int = 0) -> st.SearchStrategy:
    """Arrays of int32 in [start, below)."""
    return arrays(np.int32, shape, elements=st.integers(start, below - 1))


def probabilities(*shape: int) -> st.SearchStrategy:
    """Arrays of float32 whose rows sum to 1; no entry is 0."""

    def normalise(logits):
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return (p / p.sum(axis=-1, keepdims=True)).astype(np.float32)

    return numbers(*shape, size=5.0, seed=9).map(normalise)


def expect_like_torch(cases, *inputs: np.ndarray, moving: int = 1) -> None:
    """JAX functions give the outputs and gradients of torch functions.

    Args:
      cases: {name: (function of JAX arrays, function of torch tensors)}; compiled as one program.
      inputs: float32 or integer arrays, the same for all.
      moving: how many of the inputs, from the first on, gradients are taken of.
    """
    expected = {name: of_torch(reference, inputs, moving) for name, (_, reference) in cases.items()}
    functions = tuple((name, function) for name, (function, _) in cases.items())
    for dtype, rtol in TOLERANCE.items():
        with jax.enable_x64(dtype == np.float64):
            given = [jnp.asarray(cast(a, dtype)) for a in inputs]
            results = _compiled(functions, moving)(given[:moving], given[moving:])
        for name, (y, gradients) in results.items():
            assert y.dtype == dtype, f"{name}: {dtype.__name__} became {y.dtype}"
            got = zip(_names(moving), [y, *gradients], expected[name], strict=True)
            for what, a, b in got:
                expect_close(f"{what} of {name} in {dtype.__name__}", np.asarray(a), b, rtol)


def expect_close(what: str, got: np.ndarray, expected: np.ndarray, rtol: float) -> None:
    """At most `rtol` of the largest expected entry apart; infinities are the same."""
    assert got.shape == expected.shape, f"{what}: {got.shape} for {expected.shape}"
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite], err_msg=what)
    apart = np.abs(got[finite] - expected[finite]).max(initial=0.0)
    allowed = rtol * np.abs(expected[finite]).max(initial=0.0)
    assert apart <= allowed, f"{what}: {apart:.2e} apart, {allowed:.2e} allowed\n{got}\n{expected}"


def _names(moving: int) -> list[str]:
    return ["output", *(f"gradient {i}" for i in range(moving))]


def cast(array: np.ndarray, dtype: type) -> np.ndarray:
    return array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array


def cotangent(shape: tuple[int, ...]) -> np.ndarray:
    """Weights of the outputs, no two neighbours alike."""
    return 0.5 + (np.arange(np.prod(shape, dtype=int)) % 7 / 7).reshape(shape)


@functools.cache
def _compiled(functions, moving: int):
    def outputs_and_gradients(floats, rest):
        results = {}
        for name, function in functions:
            y, pull = jax.vjp(lambda *floats, f=function: f(*floats, *rest), *floats)
            results[name] = y, pull(jnp.asarray(cotangent(y.shape), y.dtype))
        return results

    return jax.jit(outputs_and_gradients)


def of_torch(reference, inputs, moving: int) -> list[np.ndarray]:
    tensors = [torch.tensor(cast(a, np.float64)) for a in inputs]
    for tensor in tensors[:moving]:
        tensor.requires_grad_()
    y = reference(*tensors)
    (y * torch.tensor(cotangent(tuple(y.shape)))).sum().backward()
    return [y.detach().numpy(), *(t.grad.numpy() for t in tensors[:moving])]
