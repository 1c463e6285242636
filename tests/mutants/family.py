"""A family: a correct thing, and bugs planted into it as users write them."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LEVELS = ("generic", "declared", "like")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A correct thing, broken copies of it, and the arguments of its check at three levels."""

    kind: str  # the check is `fnn.testing.check_<kind>`
    name: str
    base: Any
    bugs: Mapping[str, Any]
    args: tuple = ()  # after the thing
    needed: Mapping[str, Any] = field(default_factory=dict)  # always: without it a base fails
    declared: Mapping[str, Any] = field(default_factory=dict)  # what a careful user adds
    like: Mapping[str, Any] = field(default_factory=dict)  # a reference

    def options(self, level: str) -> dict[str, Any]:
        """The keywords of the check at a level, those of the levels below included."""
        parts = (self.needed, self.declared, self.like)[: LEVELS.index(level) + 1]
        return {name: value for part in ({}, *parts) for name, value in part.items()}


def is_held_out(family: Family, bug: str) -> bool:
    """Whether a bug is of the third that nobody looks at while writing laws: it is only counted."""
    return zlib.crc32(f"{family.kind}/{family.name}/{bug}".encode()) % 3 == 0
