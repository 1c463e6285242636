"""The public names of fnn with their signatures: `python -m tests.api > tests/api.txt`."""

import enum
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import fnn
from fnn import models

MODULES = [
    "fnn",
    *(f"fnn.{part}" for part in fnn._PARTS),
    *(f"fnn.models.{name}" for name in models.__all__),
    "fnn.data.augment", "fnn.data.audit", "fnn.initializers.presets", "fnn.optim.contrib",
    "fnn.train.sweeps.search",
]  # fmt: skip


def public(module: Any) -> list[str]:
    """The names that a module exports, or defines without an underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return sorted(name for name in own if not name.startswith("_"))


def of_default(value: Any) -> str:
    """A default as its reader would write it, without addresses."""
    if isinstance(value, enum.Enum):
        return str(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    return re.sub(r" at 0x[0-9a-f]+|<locals>\.", "", repr(value))


def of_annotation(value: Any) -> str:
    if isinstance(value, str):
        return value
    if typing.get_origin(value) is typing.Annotated:
        return of_annotation(typing.get_args(value)[0])
    text = inspect.formatannotation(value)
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text)


def of_signature(value: Any) -> str:
    """The arguments with annotations and defaults, and what is returned."""
    signature, parts, only = inspect.signature(value), [], False
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not only:
            parts.append("*")
        only = only or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        kind = "" if p.annotation is p.empty else f": {of_annotation(p.annotation)}"
        default = "" if p.default is p.empty else f" = {of_default(p.default)}"
        parts.append(f"{stars}{p.name}{kind}{default}")
    returns = signature.return_annotation
    arrow = "" if returns is signature.empty or inspect.isclass(value) else of_annotation(returns)
    return f"({', '.join(parts)})" + (f" -> {arrow}" if arrow else "")


def lines() -> Iterator[str]:
    for home in MODULES:
        module = importlib.import_module(home)
        for name in public(module):
            value = getattr(module, name)
            if inspect.ismodule(value):
                continue
            try:
                signature = of_signature(value) if callable(value) else ""
            except (TypeError, ValueError):  # an alias of a type
                signature = ""
            yield f"{home}.{name}{signature}"


if __name__ == "__main__":
    print("\n".join(lines()))
