"""One comparison for all functions: outputs and gradients against torch in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch

torch.set_num_threads(1)  # its threads would wait for those of the other tests

# float32 keeps seven digits, and the functions that are compared lose at most two of them to sums
# and cancellation; float64 keeps sixteen. Both are shares of the largest entry.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-10}


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
    """Weights of the outputs, no two neighbors alike."""
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
