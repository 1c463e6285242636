"""The constructors of fnn.nn have the arguments and defaults of the functions of fnn.layers."""

import inspect

import pytest

from fnn import layers, nn

OF = {"self_attention": "multi_head_attention", "cross_attention": "multi_head_attention"}
# A function of the sequence length there, an array here; and what hides it.
OTHERS = {("self_attention", "mask")}


def functions_of(name):
    """The functions of fnn.layers behind a constructor, that of its parameters first."""
    stem = OF.get(name, name)
    found = [getattr(layers, stem + end, None) for end in ("_init", "_cell_init", "")]
    return [function for function in found if callable(function)]  # not a module of this name


PAIRS = [
    (name, function)
    for name in nn.__all__
    if inspect.isfunction(getattr(nn, name))
    for function in functions_of(name)
]


def same(a, b):
    """Whether two defaults are equal; initializers are new functions at every call."""
    a, b = (inspect.unwrap(value) if inspect.isfunction(value) else value for value in (a, b))
    if not inspect.isfunction(a) or not inspect.isfunction(b):
        return type(a) is type(b) and a == b
    cells = [[cell.cell_contents for cell in f.__closure__ or ()] for f in (a, b)]
    return a.__code__ == b.__code__ and len(cells[0]) == len(cells[1]) and all(map(same, *cells))


@pytest.mark.parametrize(("name", "function"), PAIRS)
def test_a_constructor_has_the_defaults_of_its_functions(name, function):
    ours = inspect.signature(getattr(nn, name)).parameters
    first = inspect.signature(functions_of(name)[0]).parameters
    for argument, theirs in inspect.signature(function).parameters.items():
        if argument not in ours or theirs.default is theirs.empty or (name, argument) in OTHERS:
            continue
        if argument in first and function is not functions_of(name)[0]:
            continue  # `bias` of a layer's parameters, and of the logits of its attention
        assert same(ours[argument].default, theirs.default), argument
        assert ours[argument].annotation == theirs.annotation, argument


def test_defaults_that_differ_are_found():
    from fnn.initializers import lecun_normal, truncated_normal

    assert same(lecun_normal(), lecun_normal()) and same(0.5, 0.5)
    assert not same(truncated_normal(0.1), truncated_normal(0.2)) and not same(1, True)


def test_most_constructors_are_compared():
    assert len({name for name, _ in PAIRS}) > 40
