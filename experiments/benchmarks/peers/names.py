"""Names that a user types: of workloads, of contenders, of optimizers."""

import sys
from collections.abc import Iterable
from pathlib import Path


def expect_names(flag: str, asked: Iterable[str], known: Iterable[str]) -> None:
    """Leave with what is known, where something else is asked for."""
    if unknown := sorted(set(asked) - set(known)):
        program = Path(sys.argv[0]).name
        sys.exit(f"{program}: {flag}: expected some of {list(known)}, got {unknown}")
