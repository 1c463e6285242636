"""Early stopping as a pure fold over scores."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """What has been seen so far: the best score, when, and the evaluations without a better one.

    >>> state = EarlyStopping()
    >>> for step, loss in [(10, 1.0), (20, 0.5), (30, 0.6), (40, 0.49)]:
    ...     state = state.see(step, loss, min_delta=0.05)
    >>> state.best, state.best_step, state.since_best
    (0.5, 20, 2)
    """

    best: float = float("inf")
    best_step: int = 0  # 0 before the first evaluation
    since_best: int = 0  # evaluations

    def see(self, step: int, score: float, *, min_delta: float = 0.0) -> "EarlyStopping":
        """The state after one more evaluation; lower is better, and NaN never is."""
        if score < self.best - min_delta or (self.best_step == 0 and score == score):
            return EarlyStopping(best=score, best_step=step, since_best=0)
        return EarlyStopping(
            best=self.best, best_step=self.best_step, since_best=self.since_best + 1
        )

    def exhausted(self, patience: int | None) -> bool:
        """Whether there were `patience` evaluations without a better score; never for None."""
        return patience is not None and self.since_best >= patience

    def as_json(self) -> dict[str, Any]:
        """For the meta data of a checkpoint; `EarlyStopping(**...)` reads it back."""
        return asdict(self)
