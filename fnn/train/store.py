"""What `fit` needs from whatever keeps its results; `fnn.checkpoint.RunDir` is the one on disk."""

from typing import Any, Protocol

from jaxtyping import PyTree


class Store(Protocol):
    """Named trees of arrays with a little JSON beside them, and a log of rows."""

    def has(self, name: str) -> bool:
        """Whether a tree is kept under `name`."""
        ...

    def save(self, name: str, tree: PyTree, meta: dict[str, Any]) -> None:
        """Keep `tree` and `meta` under `name`, in place of what was there; all or nothing."""
        ...

    def load(self, name: str, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """The tree kept under `name`; it must have the structure, shapes, dtypes of `like`."""
        ...

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Append rows, each with its 'step'."""
        ...

    def rows(self, up_to_step: int) -> list[dict[str, Any]]:
        """The rows of steps up to `up_to_step`; later ones are dropped from the log."""
        ...
