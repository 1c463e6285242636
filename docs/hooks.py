"""A hook of mkdocs: `::: fnn.optim` in a page becomes an entry for each name that it exports.

The plugin by itself takes `fnn.optim.adam` for the module of that name, not for the function.
"""

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

ENTRY = "::: {path}\n    options:\n      heading: {name}\n      toc_label: {name}\n"


def exports(module: ModuleType) -> list[str]:
    """The names in `__all__`, or those that a file defines without an underscore."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return sorted(n for n in getattr(module, "__all__", own) if not n.startswith("_"))


def entries(home: str) -> str:
    """The entries of the functions and classes of a module, from the files that define them."""
    module = importlib.import_module(home)
    found = [f"## {home}\n\n{inspect.getdoc(module)}\n"]
    for name in exports(module):
        value: Any = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            path = f"{value.__module__}.{value.__name__}"
            found.append(ENTRY.format(path=path, name=name))
    return "\n".join(found)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return re.sub(r"^::: (fnn[\w.]*)$", lambda m: entries(m.group(1)), markdown, flags=re.MULTILINE)
