"""Docstrings, comments and pages use the words of the glossary and American spelling."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file for folder in ("fnn", "experiments") for file in (ROOT / folder).rglob("*.py")
)  # fmt: skip
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

# What the glossary forbids, as a regular expression, and what to write instead.
FORBIDDEN = {
    r"pictures?": "image",
    r"quick(ly|er|est)?": "fast",
    r"places": "indices or positions",
    r"to the last bit": "bitwise identical",
    r"way around": "residual connection",
    r"as long as": "norm, or `while`",
    r"(a|the) shares? of": "fraction of",
    r"(came|come|comes) to (its|their) end": "completed",
    r"died": "diverged",
    r"stands? still": "unchanged",
    r"hands? on": "pass through",
    r"whoever": "the noun",
    r"(that|which|what) (is|are) none": "the noun",
    r"how many numbers": "number of elements",
    r"leaves? (it |them )?out": "drop",
}
BRITISH = re.compile(
    r"\w*(colour|behaviour|neighbour|favour|honour|grey|centred|labelled|modelled|cancelled"
    r"|(normal|standard|central|initial|optim|minim|maxim|general|regular|serial|parametr"
    r"|vector|linear|material|summar|recogn|equal|organ|visual|factor|quant|token|random"
    r"|special|penal|synthes|orthogonal|diagonal|discret|real|util)is(e|ed|es|ing|ation)\b)\w*",
    re.IGNORECASE,
)
LITERALLY: dict[str, list[str]] = {}  # where a word is meant literally: file and text
NOISE = re.compile(r"(?<![\w.])-?\d*\.\d{9,}(?!\w)|\d\.\d*(?:9{5}|0{5}\d)\d*")


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a file, with their first lines."""
    code = file.read_text()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if doc := ast.get_docstring(node, clean=False):
                yield node.body[0].lineno, doc
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def faults(text: str, allowed: list[str] = ()) -> list[str]:
    """What a text says that the glossary says otherwise."""
    for literal in allowed:
        text = text.replace(literal, "")
    text = re.sub(r"\s+", " ", text)
    found = [
        f"{match.group(0)!r}: say {instead}"
        for pattern, instead in FORBIDDEN.items()
        for match in re.finditer(rf"\b{pattern}\b", text, re.IGNORECASE)
    ]
    return found + [f"{m.group(0)!r}: American spelling" for m in BRITISH.finditer(text)]


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=named)
def test_docstrings_and_comments_use_the_words_of_the_glossary(file):
    allowed = LITERALLY.get(named(file), [])
    found = [f"line {line}: {f}" for line, text in texts(file) for f in faults(text, allowed)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", PAGES, ids=named)
def test_pages_use_the_words_of_the_glossary(file):
    found = faults(file.read_text(), LITERALLY.get(named(file), []))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", FILES, ids=named)
def test_identifiers_are_american(file):
    names = {
        name
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (getattr(node, key, None) for key in ("id", "attr", "arg", "name"))
        if isinstance(name, str)
    }
    assert not [name for name in names if BRITISH.search(name)]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_a_docstring_begins_with_one_line_of_at_most_100_characters(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if doc := ast.get_docstring(node):
                first, *rest = doc.splitlines()
                assert len(first) <= 100, f"line {node.body[0].lineno}: {first}"
                assert not rest or not rest[0].strip(), f"line {node.body[0].lineno}: {first}"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_examples_print_rounded_numbers(file):
    for line, text in texts(file):
        shown, expected = False, []
        for row in text.splitlines():
            if row.strip().startswith((">>>", "...")):
                shown = True
            elif not row.strip():
                shown = False
            elif shown:
                expected.append(row)
        noise = [row.strip() for row in expected if NOISE.search(row)]
        assert not noise, f"line {line}: round what is printed: {noise}"


@pytest.mark.parametrize(
    "text",
    [
        "One picture of the data.", "The same values, to the last bit.", "A share of the batch.",
        "normalised", "colour", "carries stand still there", "Quicker than before.",
    ],
)  # fmt: skip
def test_a_forbidden_word_is_found(text):
    assert len(faults(text)) == 1


def test_noise_is_found():
    assert NOISE.search("[-0.05000000074505806]") and NOISE.search("0.009999999776482582")
    assert not NOISE.search("0.3333333") and not NOISE.search("1e-08")
