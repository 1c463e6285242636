"""Chinchilla scaling law: loss as a function of parameters and tokens, and compute-optimal sizes.

NumPy in float64 on the host: five coefficients are fitted to some hundred losses.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from fnn.expect import expect_positive

_NAMES = ("E", "A", "a", "B", "b")
_EXPONENTS = (0.1, 0.3, 0.5, 0.8, 1.2)  # initial values of a and b
_FLOPS = 6.0  # per parameter and token: two forward, four backward

Points = Float[np.ndarray, " n"]
Vectors = Float[np.ndarray, "starts 5"]  # log E, log A, a, log B, b


@dataclass(frozen=True, kw_only=True)
class Law:
    """L(N, D) = E + A / N^a + B / D^b, with N parameters and D tokens.

    E is the irreducible loss, in the unit of the losses (such as nats per token).
    """

    E: float
    A: float
    a: float
    B: float
    b: float
    intervals: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # of a fit, by coefficient
    error: float = float("nan")  # of a fit: root mean square of the residuals of log L

    def loss(self, params: Any, tokens: Any) -> Any:
        """L(N, D), for numbers or arrays.

        >>> round(Law(E=1.69, A=406.4, a=0.34, B=410.7, b=0.28).loss(70e9, 1.4e12), 3)
        1.937
        """
        return self.E + self.A / params**self.a + self.B / tokens**self.b

    def __str__(self) -> str:
        lines = [
            f"L = {self.E:.4g} + {self.A:.4g} / N^{self.a:.3g} + {self.B:.4g} / D^{self.b:.3g}"
        ]
        lines += [f"  {n}: {low:.4g} to {high:.4g}" for n, (low, high) in self.intervals.items()]
        return "\n".join(lines)


class Optimal(NamedTuple):
    """The result of `optimal`: numbers, or arrays for several budgets."""

    params: Any
    tokens: Any
    loss: Any


def fit(
    params: Any,
    tokens: Any,
    losses: Any,
    *,
    delta: float = 1e-3,
    bootstraps: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Law:
    """Fits L = E + A / N^a + B / D^b to the losses of models of several sizes.

        minimize sum_i Huber_delta( log L(N_i, D_i) - log loss_i )

    over log E, log A, a, log B and b, from 25 initial points: a and b on a grid, with the least
    squares E, A and B of each pair.

    Args:
      params, tokens, losses: vectors of positive numbers, one element per point; at least five
        points with three sizes and three numbers of tokens.
      delta: threshold of Huber's loss, in log loss.
      bootstraps: fits to resampled points, for the intervals; 0 for none. The intervals are too
        narrow where points are from the same run, and so not independent.
      level: confidence level of the intervals.
      seed: of the resampling; the fit itself is deterministic.

    Returns: a `Law`, with `intervals` and the `error` of the fit.
    Raises: ValueError for columns of unequal length, for numbers not above 0, and for too few
      points.
    Source: Hoffmann et al. 2022, arXiv:2203.15556, appendix D.2; the bootstrap: Besiroglu et al.
      2024, arXiv:2404.10102. Deviates: Levenberg-Marquardt instead of L-BFGS, and other initial
      points; the minimum is the same.

    >>> law = Law(E=1.7, A=400.0, a=0.34, B=410.0, b=0.28)
    >>> n, d = (grid.ravel() for grid in np.meshgrid([1e7, 1e8, 1e9], [1e9, 1e10, 1e11]))
    >>> found = fit(n, d, law.loss(n, d))
    >>> [round(x, 3) for x in (found.E, found.A, found.a, found.B, found.b)]
    [1.7, 400.0, 0.34, 410.0, 0.28]
    """
    n, d, loss = _columns(params, tokens, losses)
    if not (0 < level < 1 and delta > 0):
        raise ValueError(
            f"scaling.fit: expected level in (0, 1) and delta above 0, got {level} and {delta}; "
            "correct them"
        )
    if bootstraps:
        expect_positive("scaling.fit", bootstraps=bootstraps)
    x = _LogData(np.log(n), np.log(d), np.log(loss))
    starts = _starts(n, d, loss)
    ends, misfits = _descend(x, starts, np.ones((len(starts), len(loss))), delta)
    best = ends[np.argmin(misfits)]
    error = float(np.sqrt(np.mean(_residuals(x, best[None])[0] ** 2)))
    intervals = {}
    if bootstraps:
        draws = np.random.default_rng(seed).multinomial(
            len(loss), np.full(len(loss), 1 / len(loss)), bootstraps
        )
        again, _ = _descend(x, np.tile(best, (bootstraps, 1)), draws.astype(np.float64), delta)
        tail = 100 * (1 - level) / 2
        low, high = np.percentile(_coefficients(again), [tail, 100 - tail], axis=0).tolist()
        intervals = dict(zip(_NAMES, zip(low, high, strict=True), strict=True))
    numbers = dict(zip(_NAMES, _coefficients(best[None])[0].tolist(), strict=True))
    return Law(**numbers, intervals=intervals, error=error)


def optimal(law: Law, flops: Any) -> Optimal:
    """Parameters and tokens with the lowest loss for a budget of C = 6 N D FLOPs.

        N = G (C / 6)^(b / (a + b)),   D = C / (6 N),   G = (a A / (b B))^(1 / (a + b))

    Args:
      flops: C, a number or an array, above 0.

    Raises: ValueError for flops not above 0, and for a law whose loss does not fall with parameters
      and tokens.
    Source: Hoffmann et al. 2022, arXiv:2203.15556, section 3.3, equation 4.

    >>> law = Law(E=1.69, A=406.4, a=0.34, B=410.7, b=0.28)
    >>> best = optimal(law, 1e21)
    >>> f'{best.params:.2g} parameters, {best.tokens / best.params:.0f} tokens for each'
    '1.8e+09 parameters, 50 tokens for each'
    """
    if not np.all(np.asarray(flops) > 0):
        raise ValueError(f"scaling.optimal: expected flops above 0, got {flops}; correct them")
    if not min(law.A, law.a, law.B, law.b) > 0:
        raise ValueError(
            f"scaling.optimal: expected A, a, B and b above 0, got {law}; fit it to more sizes"
        )
    total = law.a + law.b
    ratio = (law.a * law.A / (law.b * law.B)) ** (1 / total)
    params = ratio * (flops / _FLOPS) ** (law.b / total)
    tokens = flops / _FLOPS / params
    return Optimal(params, tokens, law.loss(params, tokens))


class _LogData(NamedTuple):
    n: Points
    d: Points
    loss: Points


def _columns(params: Any, tokens: Any, losses: Any) -> list[Points]:
    given = {"params": params, "tokens": tokens, "losses": losses}
    columns = {name: np.asarray(values, np.float64) for name, values in given.items()}
    shapes = {name: values.shape for name, values in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(
            f"scaling.fit: expected three columns of one length, got the shapes {shapes}; give the "
            "parameters and tokens of each loss"
        )
    for name, values in columns.items():
        if not (np.isfinite(values).all() and (values > 0).all()):
            wrong = values[~(np.isfinite(values) & (values > 0))][0]
            raise ValueError(f"scaling.fit: expected {name} above 0, got {wrong}; drop the point")
    kinds = [len(np.unique(columns[name])) for name in ("params", "tokens")]
    if len(columns["losses"]) < 5 or min(kinds) < 3:
        raise ValueError(
            "scaling.fit: expected 5 points with 3 sizes and 3 numbers of tokens, got "
            f"{len(columns['losses'])} with {kinds[0]} and {kinds[1]}; the law is not determined "
            "by fewer"
        )
    return list(columns.values())


def _starts(n: Points, d: Points, loss: Points) -> Vectors:
    """Initial points: for each pair of exponents, E, A and B by least squares in relative error."""
    found = []
    for a in _EXPONENTS:
        for b in _EXPONENTS:
            columns = np.stack([np.ones_like(n), n**-a, d**-b], axis=1)
            sizes = columns.max(axis=0)
            solved, *_ = np.linalg.lstsq(
                columns / sizes / loss[:, None], np.ones_like(n), rcond=None
            )
            # Logarithms need positive values.
            e, big_a, big_b = np.maximum(solved, 1e-3 * loss.min()) / sizes
            found.append([np.log(e), np.log(big_a), a, np.log(big_b), b])
    return np.array(found)


def _parts(x: _LogData, at: Vectors) -> Float[np.ndarray, "starts n 3"]:
    """Logarithms of E, A / N^a and B / D^b."""
    e, log_a, a, log_b, b = at.T[:, :, None]
    return np.stack([e + 0 * x.n, log_a - a * x.n, log_b - b * x.d], axis=-1)


def _residuals(x: _LogData, at: Vectors) -> Float[np.ndarray, "starts n"]:
    return np.logaddexp.reduce(_parts(x, at), axis=-1) - x.loss


def _slopes(x: _LogData, at: Vectors) -> Float[np.ndarray, "starts n 5"]:
    parts = _parts(x, at)
    e, a, b = np.moveaxis(np.exp(parts - np.logaddexp.reduce(parts, axis=-1)[..., None]), -1, 0)
    return np.stack([e, a, -a * x.n, b, -b * x.d], axis=-1)


def _misfit(r: np.ndarray, weights: np.ndarray, delta: float) -> np.ndarray:
    """Huber's loss, summed over the points."""
    size = np.abs(r)
    huber = np.where(size <= delta, r**2 / 2, delta * (size - delta / 2))
    return (weights * huber).sum(axis=-1)


def _descend(
    x: _LogData, at: Vectors, weights: np.ndarray, delta: float, steps: int = 300
) -> tuple[Vectors, np.ndarray]:
    """Levenberg-Marquardt with Huber weights from all points; returns minima and misfits."""
    damping = np.full(len(at), 1e-3)
    r = _residuals(x, at)
    value = _misfit(r, weights, delta)
    settled = np.zeros(len(at), int)
    for _ in range(steps):
        slopes = _slopes(x, at)
        robust = weights * np.minimum(1, delta / np.maximum(np.abs(r), delta))
        gradient = ((robust * r)[:, None, :] @ slopes)[:, 0]
        curvature = np.swapaxes(slopes * robust[:, :, None], 1, 2) @ slopes
        diagonal = np.einsum("skk->sk", curvature)
        damped = curvature + np.eye(5) * (damping[:, None] * diagonal + 1e-300)[:, None, :]
        step = np.clip(-np.einsum("skl,sl->sk", np.linalg.pinv(damped), gradient), -2, 2)
        tried = at + step
        r_tried = _residuals(x, tried)
        value_tried = _misfit(r_tried, weights, delta)
        better, before = value_tried < value, value
        at, r = np.where(better[:, None], tried, at), np.where(better[:, None], r_tried, r)
        value = np.where(better, value_tried, value)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e8)
        settled += value_tried >= (1 - 1e-9) * before  # ten times: damping grows by 4^10
        if (settled >= 10).all():
            break
    return at, value


def _coefficients(at: Vectors) -> Float[np.ndarray, "starts 5"]:
    """E, A, a, B, b."""
    e, log_a, a, log_b, b = at.T
    return np.stack([np.exp(e), np.exp(log_a), a, np.exp(log_b), b], axis=-1)
