"""What mkdocs needs to show the docstrings of fnn.

`::: fnn.optim` in a page becomes an entry for each name that it exports (the plugin by itself takes
`fnn.optim.adam` for the module of that name), and doctests in docstrings become blocks of code.
"""

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import griffe
from mkdocs.utils import get_relative_url

from fnn import show

ENTRY = "::: {path}\n    options:\n      heading: {name}\n      toc_label: {name}\n"
EXAMPLE = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"^ *(Returns|Raises|Source|Deviates|Compat|State): (?=\S)", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """Examples as blocks of code, and each note (Source: ...) as a paragraph."""
    text = EXAMPLE.sub(lambda m: f"```pycon\n{m.group(0)}\n```", docstring)
    return NOTE.sub(r"\n**\1.** ", text)


class Docstrings(griffe.Extension):
    """Rewrites docstrings before the plugin parses them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def exports(module: ModuleType) -> list[str]:
    """The names in `__all__`, or those that a file defines without an underscore."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return sorted(n for n in getattr(module, "__all__", own) if not n.startswith("_"))


def has_signature(value: Any) -> bool:
    return "__signature__" in vars(value)


def signature(function: Any) -> str:
    """The arguments of a function whose signature is not in its source, with their defaults."""
    parts = []
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        plain = repr(p.default) if isinstance(p.default, int | float) else show.made_by(p.default)
        parts.append(p.name if p.default is p.empty else f"{p.name}={plain}")
    return f"{function.__name__}({', '.join(parts)}) -> Model"


def own_entry(function: Any) -> str:
    """The entry of such a function: heading, signature, docstring."""
    code = f"```python\n{signature(function)}\n```"
    return f"### {function.__name__}\n\n{code}\n\n{as_markdown(inspect.getdoc(function) or '')}\n"


def entries(home: str, headed: bool) -> str:
    """The entries of the functions and classes of a module, from the files that define them."""
    module = importlib.import_module(home)
    found = [f"## {home}\n\n{inspect.getdoc(module)}\n"] if headed else []
    for name in exports(module):
        value: Any = getattr(module, name)
        if inspect.isfunction(value) and has_signature(inspect.unwrap(value, stop=has_signature)):
            found.append(own_entry(value))
        elif inspect.isfunction(value) or inspect.isclass(value):
            path = f"{value.__module__}.{value.__name__}"
            found.append(ENTRY.format(path=path, name=name))
    return "\n".join(found)


def on_page_markdown(markdown: str, **_: Any) -> str:
    homes = re.findall(r"^::: (fnn[\w.]*)$", markdown, re.MULTILINE)
    for home in homes:
        markdown = re.sub(
            rf"^::: {home}$",
            lambda _, home=home: entries(home, headed=len(homes) > 1),
            markdown,
            flags=re.MULTILINE,
        )
    return markdown


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The script of the search that the theme would fetch from the network, from this site."""
    own = get_relative_url("assets/iframe-worker.js", page.url)
    return output.replace("https://unpkg.com/iframe-worker/shim", own)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page of missing addresses."""
    return output_content.replace("https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js")
