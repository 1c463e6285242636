"""Data as other libraries have them: used rightly, or refused with the conversion."""

import jax
import jaxtyping
import numpy as np
import pandas
import pytest

from fnn import data
from fnn.data.augment import smote

KEY = jax.random.key(0)
FRAME = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "z"]})


@pytest.fixture(autouse=True)
def without_shape_hook():
    """Users have no hook that checks the annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


FOREIGN = {
    "frame": (FRAME, "to_numpy"),
    "series": (FRAME["a"], "to_numpy"),
    "series of strings": (FRAME["b"], "to_numpy"),
    "list": ([1.0, 2.0], r"np\.asarray"),
    "strings": (np.array(["a", "b"]), r"np\.unique"),
    "objects": (np.array([1, "a"], object), r"np\.unique|astype"),
    "masked": (np.ma.masked_array([1.0, 2.0], [0, 1]), "filled"),
    "key": (KEY, "key"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), "timedelta64"),
}
fitted = data.fit_standardizer(jax.numpy.ones((2, 1)))
encoder = data.fit_encoder(data.Table(columns={"a": np.ones(2)}))
TAKERS = {
    "fit_standardizer": data.fit_standardizer,
    "Standardizer.apply": fitted.apply,
    "Standardizer.invert": fitted.invert,
    "Encoder.invert": encoder.invert,
    "windows": lambda x: data.windows(x, 1),
    "smote": lambda x: smote(KEY, x, 1),
}


@pytest.mark.parametrize("given", FOREIGN)
@pytest.mark.parametrize("name", TAKERS)
def test_what_is_no_array_of_numbers_is_refused(name, given):
    x, advice = FOREIGN[given]
    with pytest.raises(ValueError, match=rf"{name}: expected .* got .*; .*({advice})"):
        TAKERS[name](x)


HOST = {
    "stream": lambda x: data.stream((x, np.arange(2)), KEY, 1),
    "Streamed": lambda x: data.Streamed(np.arange(2), x).batches(KEY, 1, 0),
    "audit": lambda x: data.audit({"train": (x, None)}),
    "show": lambda x: data.show((x, None)),
}


@pytest.mark.parametrize("given", ["frame", "series", "series of strings", "masked"])
@pytest.mark.parametrize("name", HOST)
def test_host_functions_refuse_what_numpy_would_misread(name, given):
    x, advice = FOREIGN[given]
    with pytest.raises(ValueError, match=rf"expected .* got .*; .*({advice})"):
        HOST[name](x)


@pytest.mark.parametrize("given", ["strings", "objects", "dates", "key"])
def test_a_stream_refuses_what_cannot_go_to_a_device(given):
    x, advice = FOREIGN[given]
    with pytest.raises(ValueError, match=rf"stream: expected data.* got .*; .*({advice})"):
        data.stream({"x": x}, KEY, 1)


@pytest.mark.parametrize(
    "given", ["frame", "series", "series of strings", "list", "masked", "dates"]
)
def test_a_table_refuses_what_are_no_columns(given):
    with pytest.raises(ValueError, match="Table: expected column 'a' as a NumPy array .*; give "):
        data.Table(columns={"a": FOREIGN[given][0]})
    for function in (data.fit_encoder, encoder.apply, encoder.codes):
        with pytest.raises(ValueError, match="ncoder: expected a Table, got .*; make one by"):
            function(FOREIGN[given][0])
    with pytest.raises(ValueError, match="Table: expected columns={name: array}, got a DataFrame"):
        data.Table(columns=FRAME)


LABELS = [0, 1, 0, 1, 1, 0]


def key():
    return jax.random.key(0)


OF_LABELS = {
    "stratified_split": lambda y: data.stratified_split(key(), y, (0.5, 0.5)),
    "grouped_split": lambda y: data.grouped_split(key(), y, (0.5, 0.5)),
    "stratified_k_fold": lambda y: data.stratified_k_fold(key(), y, 2),
    "grouped_k_fold": lambda y: data.grouped_k_fold(key(), y, 2),
    "stratified_grouped_k_fold": lambda y: data.stratified_grouped_k_fold(key(), y, y, 2),
}


@pytest.mark.parametrize("name", OF_LABELS)
def test_labels_of_any_kind_are_split_alike(name):
    expected = OF_LABELS[name](np.array(LABELS))
    named = [f"class {y}" for y in LABELS]
    kinds = [LABELS, named, np.array(named, object), pandas.Series(named), pandas.Series(LABELS)]
    for labels in [*kinds, jax.numpy.asarray(LABELS)]:
        for a, b in zip(
            jax.tree.leaves(OF_LABELS[name](labels)), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_labels_and_groups_are_as_many():
    with pytest.raises(ValueError, match="a group for each of 6 labels, got 3"):
        data.stratified_grouped_k_fold(key(), LABELS, LABELS[:3], 2)


@pytest.mark.parametrize("name", [*OF_LABELS, "class_weights"])
@pytest.mark.parametrize(
    "labels",
    [FRAME, "abc", 3, None, np.zeros((3, 1), int), np.array([0.0, np.nan, 1.0]), ["a", None, "b"],
     [1, "a", 2.5], pandas.Series([1, None, 2], dtype="Int64"), np.ma.masked_array([1, 2], [0, 1])],
    ids=lambda labels: type(labels).__name__,
)  # fmt: skip
def test_labels_that_are_no_labels_are_refused(name, labels):
    if isinstance(labels, list) and labels == [1, "a", 2.5]:
        labels = np.array(labels, object)
    function = OF_LABELS.get(name, lambda y: data.class_weights(y, 2))
    with pytest.raises(ValueError, match=rf"{name}: expected (labels|groups)"):
        function(labels)


def test_class_weights_of_strings_say_how_to_number_them():
    with pytest.raises(ValueError, match=r"class_weights: .*<U1\[2\]; .* np\.unique"):
        data.class_weights(np.array(["a", "b"]), 2)


@pytest.mark.parametrize("n", [FRAME, np.arange(5), [1, 2], 5.0, None])
def test_a_number_of_examples_is_a_number(n):
    for function in (lambda n: data.split(KEY, n, (0.5, 0.5)), lambda n: data.k_fold(KEY, n, 2)):
        with pytest.raises(ValueError, match="expected n to be the number of examples, got"):
            function(n)
    with pytest.raises(ValueError, match="split: expected the fractions of all parts, got 0.8"):
        data.split(KEY, 5, 0.8)


KEYS = [0, None, np.zeros(2, np.uint32), jax.random.split(jax.random.key(1), 2)]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: type(key).__name__)
def test_a_key_is_a_typed_key(key):
    functions = [
        lambda: data.split(key, 6, (0.5, 0.5)),
        lambda: data.k_fold(key, 6, 2),
        lambda: data.stratified_split(key, LABELS, (0.5, 0.5)),
        lambda: data.grouped_split(key, LABELS, (0.5, 0.5)),
        lambda: data.stratified_k_fold(key, LABELS, 2),
        lambda: data.grouped_k_fold(key, LABELS, 2),
        lambda: data.stream(np.arange(3), key, 1),
    ]
    for function in functions:
        with pytest.raises(
            ValueError, match=r"expected a (typed|single) key, got .* jax\.(random\.key|vmap)"
        ):
            function()


@pytest.mark.parametrize("text", [["a"], None, 3, b"a", FRAME["b"], "\ud800"], ids=str)
def test_a_text_is_one_str(text):
    characters = data.Characters("ab")
    encoders = [data.encode_bytes, data.Characters.of, characters.encode]
    encoders += [lambda text: data.train_subwords(text, 256)]
    for function in encoders:
        with pytest.raises(ValueError, match="expected a text"):
            function(text)


@pytest.mark.parametrize("tokens", [[300], [-1], [0.5], ["a"], [[1, 2]]], ids=str)
def test_tokens_are_integers_of_the_vocabulary(tokens):
    for function in (data.decode_bytes, data.Characters("ab").decode):
        with pytest.raises(ValueError, match=r"decode(_bytes)?: expected tokens"):
            function(np.array(tokens))


@pytest.mark.parametrize("sequences", ["abc", None, 3, ["ab"], [1, 2], FRAME, [[0.5]]], ids=str)
def test_sequences_to_pack_are_integers(sequences):
    with pytest.raises(ValueError, match="pack: expected"):
        data.pack(sequences, 4)
    with pytest.raises(ValueError, match="pack: .* common integer dtype, got float64"):
        data.pack([np.array([1], np.uint64), np.array([1])], 4)


def test_an_audit_takes_labels_of_pandas_and_refuses_missing_ones():
    x = np.random.default_rng(0).normal(size=(200, 3))
    y = np.where(x[:, 0] + x[:, 1] > 0, "yes", "no").astype(object)
    assert not data.audit({"train": (x, pandas.Series(y))})
    y[3] = None
    with pytest.raises(ValueError, match="audit: expected labels of 'train' for every example"):
        data.audit({"train": (x, y)})
    for wrong in (np.array([["a", "b"]] * 200), np.array([None] * 200)):
        with pytest.raises(ValueError, match="audit: expected x of 'train' to be an array of numb"):
            data.audit({"train": (wrong, None)})
