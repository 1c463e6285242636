"""Laws of initializers: `initializer(key, shape, dtype) -> array`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.testing import draws
from fnn.testing._compare import expect_same
from fnn.testing.battery import Battery, Law, LawError, Skip, check
from fnn.testing.laws import is_traced_alike

Initializer = Callable[..., Any]
Shape = tuple[int, ...]
Std = float | Callable[[Shape], float]

SIGMAS = 5.0

# Ratios of moments that tell the distributions apart: fourth moment over squared variance.
KURTOSIS = {"normal": 3.0, "uniform": 1.8, "truncated": 2.366}


def check_initializer(initializer: Initializer, shape: Shape, **options: Any) -> None:
    """Runs all laws of an initializer; the arguments are those of `initializer_laws`.

    Raises: `BrokenLaws`, with a `LawError` for each broken law.

    >>> check_initializer(jax.random.normal, (30, 40), std=1.0)
    """
    check("check_initializer", initializer_laws(initializer, shape, **options))


def initializer_laws(
    initializer: Initializer,
    shape: Shape,
    *,
    std: Std | None = None,
    random: bool = True,
    shapes: Sequence[Shape] = (),
    orthogonal: bool = False,
    distribution: str | None = None,
    like: Initializer | None = None,
    dtypes: Sequence[Any] = ("float32",),
    skip: Skip = {},  # noqa: B006
    policy: str | None = None,
) -> list[Law]:
    """The laws of an initializer.

    Args:
      shape: a suitable one, with a thousand elements or more if they are random.
      std: the standard deviation that it must have: a number, or a function of the shape.
      random: whether it draws from its key.
      shapes: others to try, such as those of convolutions: (3, 3, 8, 16).
      orthogonal: whether its rows or columns are orthogonal; they are not independent then.
      distribution: "normal", "uniform" or "truncated" (at two standard deviations).
      like: a reference; values are compared for deterministic ones, standard deviations otherwise.
      dtypes: also asked for.
      skip: name of a law -> the reason why it does not apply.
      policy: "fnn" adds the rules of this library: float32 unless asked, any dtype on request.

    >>> initializer_laws(jax.random.normal, (30, 40), std=1.0)[0]
    initializer_gives_the_shape
    """
    where = "check_initializer"
    if not callable(initializer):
        raise ValueError(f"{where}: expected a function of key, shape, dtype, got {initializer!r}")
    if distribution is not None and distribution not in KURTOSIS:
        raise ValueError(
            f"{where}: expected a distribution among {', '.join(KURTOSIS)}, got {distribution!r}"
        )
    laws = Battery(where, skip)
    every = [tuple(shape), *map(tuple, shapes)]
    given_dtypes = [jnp.dtype(d) for d in ([dtypes] if isinstance(dtypes, str) else dtypes)]
    if policy == "fnn":
        given_dtypes = list(dict.fromkeys([*given_dtypes, jnp.dtype("bfloat16")]))
    laws.add(initializer_gives_the_shape, initializer, every, given_dtypes)
    laws.add(is_traced_alike, lambda key: initializer(key, every[0]), jax.random.key(0))
    laws.add(initializer_is_finite, initializer, every)
    if random:
        laws.add(initializer_follows_the_key, initializer, shape)
        laws.add(initializer_uses_no_key_twice, initializer, shape)
        laws.add(jit_gives_the_same_draws, initializer, shape)
        if not orthogonal:
            laws.add(entries_are_independent, initializer, every)
            laws.add(draws_are_symmetric, initializer, shape)
        if std is not None:
            for one in every:
                laws.add(initializer_has_moments, initializer, one, std=std)
    if orthogonal:
        laws.add(is_orthogonal, initializer, every)
    if distribution is not None:
        laws.add(has_the_distribution, initializer, shape, distribution)
    if like is not None:
        laws.add(draws_as_the_reference, initializer, every, like, random)
    return laws.done()


def initializer_gives_the_shape(
    initializer: Initializer, shapes: Sequence[Shape], dtypes: Sequence[Any]
) -> None:
    """The result has the requested shape and dtype, float32 by default; nothing is computed.

    >>> initializer_gives_the_shape(jax.random.normal, [(2, 3)], [jnp.float32])
    """
    for shape in shapes:
        for dtype in (None, *dtypes):
            given = (shape,) if dtype is None else (shape, dtype)
            try:
                got = jax.eval_shape(lambda key, g=given: initializer(key, *g), jax.random.key(0))
            except TypeError:
                if dtype is None:
                    continue  # it has no default dtype
                raise
            wanted = jnp.dtype(dtype or jnp.float32)
            if got.shape != tuple(shape) or got.dtype != wanted:
                raise LawError(
                    f"initializer_gives_the_shape: asked for {wanted}{list(shape)}, got "
                    f"{got.dtype}{list(got.shape)}; pass shape and dtype on to the draw",
                    expected=(shape, wanted),
                    got=(got.shape, got.dtype),
                )


def _draw(initializer: Initializer, shape: Shape, seed: int) -> np.ndarray:
    return np.asarray(initializer(jax.random.key(seed), tuple(shape), jnp.float32), np.float64)


def initializer_is_finite(initializer: Initializer, shapes: Sequence[Shape]) -> None:
    """All values are finite.

    >>> initializer_is_finite(jax.random.normal, [(2, 3)])
    """
    for shape in shapes:
        values = _draw(initializer, shape, 0)
        if not np.isfinite(values).all():
            raise LawError(f"initializer_is_finite: values of {shape} are not finite")


def initializer_follows_the_key(initializer: Initializer, shape: Shape) -> None:
    """The result is a function of the key: bitwise for the same key, different for another.

    >>> initializer_follows_the_key(jax.random.normal, (2, 3))
    """
    law = "initializer_follows_the_key"
    first, again, other = (_draw(initializer, shape, seed) for seed in (0, 0, 1))
    names = ("the first call", "the second")
    expect_same(law, first, again, names=names, hint="draw from the key alone")
    if bool((first == other).all()):
        raise LawError(f"{law}: two keys give the same values; draw from the key")


def initializer_uses_no_key_twice(initializer: Initializer, shape: Shape) -> None:
    """No two of its draws have the same key.

    >>> initializer_uses_no_key_twice(jax.random.normal, (2, 3))
    """
    draws.no_key_is_used_twice(lambda key: initializer(key, tuple(shape)), jax.random.key(0))


def jit_gives_the_same_draws(initializer: Initializer, shape: Shape) -> None:
    """Compiled, the values are the same.

    >>> jit_gives_the_same_draws(jax.random.normal, (2, 3))
    """
    jitted = jax.jit(lambda key: initializer(key, tuple(shape), jnp.float32))(jax.random.key(0))
    expect_same(
        "jit_gives_the_same_draws",
        _draw(initializer, shape, 0),
        np.asarray(jitted, np.float64),
        names=("eager", "jit"),
        rtol=1e-4,
        hint="look for NumPy's random numbers, or state outside the function",
    )


def entries_are_independent(initializer: Initializer, shapes: Sequence[Shape]) -> None:
    """Rows are not repeated, and neighbors along each axis are uncorrelated.

    >>> entries_are_independent(jax.random.normal, [(30, 40)])
    """
    for shape in shapes:
        values = _draw(initializer, shape, 3)
        centered = values - values.mean()
        scale = centered.std()
        if scale == 0:
            continue
        for axis in range(values.ndim):
            a = np.take(centered, range(values.shape[axis] - 1), axis) / scale
            b = np.take(centered, range(1, values.shape[axis]), axis) / scale
            if a.size < 100:
                continue
            correlation = float((a * b).mean())
            products = (a * b).std() / np.sqrt(a.size)
            if not abs(correlation) <= SIGMAS * products + 1e-9:
                raise LawError(
                    f"entries_are_independent: neighbors along axis {axis} of {shape} have a "
                    f"correlation of {correlation:.3g}; draw every entry for itself",
                    expected=0.0,
                    got=correlation,
                )


def draws_are_symmetric(initializer: Initializer, shape: Shape) -> None:
    """Values below the mean are as far from it as those above: the third moment is 0.

    >>> draws_are_symmetric(jax.random.normal, (30, 40))
    """
    values = _draw(initializer, shape, 4).ravel()
    scale = values.std()
    if values.size < 500 or scale == 0:
        return
    cubes = ((values - values.mean()) / scale) ** 3
    skew, error = cubes.mean(), cubes.std() / np.sqrt(cubes.size)
    if not abs(skew) <= SIGMAS * error:
        raise LawError(
            f"draws_are_symmetric: the third moment is {skew:.3g}, and must be 0 within "
            f"{SIGMAS * error:.2g}; look for a draw from [0, 1), or one that is cut on one side",
            expected=0.0,
            got=skew,
        )


def initializer_has_moments(initializer: Initializer, shape: Shape, *, std: Std) -> None:
    """Mean 0 and the given standard deviation, within five of their own standard errors.

    The standard errors are those of independent draws: std / sqrt(n) for the mean, and from the
    fourth moment of the sample for the variance.

    >>> initializer_has_moments(jax.random.normal, (30, 40), std=1.0)
    """
    size = std(tuple(shape)) if callable(std) else std
    values = np.concatenate([_draw(initializer, shape, seed).ravel() for seed in (2, 5)])
    variance, fourth = np.mean(values**2), np.mean(values**4)
    errors = {
        "mean": (values.mean(), 0.0, size / np.sqrt(values.size)),
        "variance": (variance, size**2, np.sqrt((fourth - variance**2) / values.size)),
    }
    for moment, (got, expected, error) in errors.items():
        if not abs(got - expected) <= SIGMAS * error + 1e-12:
            raise LawError(
                f"initializer_has_moments: the {moment} of {values.size} draws of shape {shape} is "
                f"{got:.4g}, and must be {expected:.4g} within {SIGMAS:g} standard errors of "
                f"{error:.2g}; check which fan the variance is divided by, the receptive field "
                "included",
                expected=expected,
                got=got,
            )


def is_orthogonal(initializer: Initializer, shapes: Sequence[Shape]) -> None:
    """The rows or the columns of the matrix (..., out) are orthogonal and of one length.

    And their signs are random: the mean of many draws is 0.

    >>> is_orthogonal(lambda key, shape, dtype: jax.random.orthogonal(key, shape[0]), [(5, 5)])
    """
    for shape in shapes:
        matrix = _draw(initializer, shape, 0).reshape(-1, shape[-1])
        rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        gram = rows @ rows.T
        size = gram.trace() / len(gram)
        if not np.abs(gram - size * np.eye(len(gram))).max() <= 1e-4 * size:
            largest = np.abs(gram - size * np.eye(len(gram))).max()
            raise LawError(
                f"is_orthogonal: rows of {shape} have products up to {largest:.3g}, and must have "
                "0; orthogonalize "
                "the matrix of all axes but the last, transposed if it is wide"
            )
        draws_ = np.stack([_draw(initializer, shape, seed).ravel() for seed in range(24)])
        diagonal = draws_[:, 0]
        if (diagonal > 0).all() or (diagonal < 0).all():
            raise LawError(
                "is_orthogonal: the first entry has the same sign for 24 keys; multiply by the "
                "signs of the diagonal of R, as a uniform draw requires"
            )


def has_the_distribution(initializer: Initializer, shape: Shape, distribution: str) -> None:
    """The fourth moment is that of the distribution, and bounded ones have their bound.

    >>> has_the_distribution(jax.random.normal, (30, 40), 'normal')
    """
    values = np.concatenate([_draw(initializer, shape, seed).ravel() for seed in range(4)])
    fourth = (values / values.std()) ** 4
    found, error = fourth.mean(), fourth.std() / np.sqrt(fourth.size)
    wanted = KURTOSIS[distribution]
    if not abs(found - wanted) <= SIGMAS * error + 0.02:
        raise LawError(
            f"has_the_distribution: the fourth moment over the squared variance is {found:.3g}, "
            f"and that of a {distribution} distribution {wanted:.3g}; check the draw",
            expected=wanted,
            got=found,
        )


def draws_as_the_reference(
    initializer: Initializer, shapes: Sequence[Shape], like: Initializer, random: bool
) -> None:
    """Standard deviation, fourth moment and range are those of the reference, for every shape.

    Deterministic ones have the same values.

    >>> draws_as_the_reference(jax.random.normal, [(30, 40)], jax.random.normal, True)
    """
    law = "draws_as_the_reference"
    for shape in shapes:
        if not random:
            expect_same(
                law,
                _draw(like, shape, 0),
                _draw(initializer, shape, 0),
                names=("the reference", "the initializer"),
                rtol=1e-5,
                hint="compare the definition",
            )
            continue
        ours, theirs = (
            np.stack([_draw(f, shape, seed) for seed in range(8)]) for f in (initializer, like)
        )
        for what, power in {"mean": 1, "mean square": 2, "fourth moment": 4}.items():
            a, b = ours**power, theirs**power
            error = np.hypot(a.std(), b.std()) / np.sqrt(a.size)
            if not abs(a.mean() - b.mean()) <= SIGMAS * error + 1e-3 * abs(b.mean()):
                raise LawError(
                    f"{law}: the {what} of shape {shape} is {a.mean():.4g}, and that of the "
                    f"reference {b.mean():.4g}; check fans, gains and bounds",
                    expected=b.mean(),
                    got=a.mean(),
                )
        zeros = [(x == 0).mean() for x in (ours, theirs)]
        found, wanted = (_gram(x[0]) for x in (ours, theirs))
        if abs(zeros[0] - zeros[1]) > 0.05 or not np.allclose(
            found, wanted, atol=0.3 * wanted.max()
        ):
            raise LawError(
                f"{law}: of shape {shape} the fraction of zeros is {zeros[0]:.3g}, that of the "
                f"reference {zeros[1]:.3g}, or the products of its rows differ; compare"
            )


def _gram(values: np.ndarray) -> np.ndarray:
    """Sorted squared singular values of the matrix of all axes but the last."""
    return np.linalg.svd(values.reshape(-1, values.shape[-1]), compute_uv=False) ** 2
