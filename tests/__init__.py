"""The tests of fnn. `shapes` must be there before fnn is imported: see pyproject.toml."""

from tests import shapes as shapes
