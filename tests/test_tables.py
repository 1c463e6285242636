"""Tables: every row is accounted for, the kind of a column is kept, a constant stays small."""

import bz2
import gzip
import lzma

import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnn import data
from fnn.data.augment import autocontrast

ULP = np.nextafter(np.float32(0.1), np.float32(1)) - np.float32(0.1)
CONSTANT = {
    "equal": [0.1, 0.1, 0.1],
    "one ulp": [0.1, 0.1 + float(ULP), 0.1],
    "zero": [0.0, 0.0, 0.0],
    "large": [-3.3e7, -3.3e7, -3.3e7],
}


def by_standardizer(column, later):
    s = data.fit_standardizer(jnp.asarray(column, jnp.float32)[:, None])
    return s.apply(jnp.asarray(later, jnp.float32)[:, None])


def by_encoder(column, later):
    table = [data.Table(columns={"a": np.asarray(c, np.float64)}) for c in (column, later)]
    return data.fit_encoder(table[0]).apply(table[1])


def by_autocontrast(column, later):
    return autocontrast(jnp.asarray(column, jnp.float32)[None, :, None]) - column[0]


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("scaled", [by_standardizer, by_encoder, by_autocontrast])
def test_what_is_constant_but_for_rounding_is_not_scaled_up(scaled, name):
    column = np.asarray(CONSTANT[name])
    if scaled is by_autocontrast and name == "large":
        column = -1e-8 * column  # images are clipped to [0, 1]
    if scaled is by_encoder and name == "one ulp":
        column = np.array([0.3, 0.1 + 0.2, 0.3])  # of float64
    later = column * 1.00001
    assert np.abs(scaled(column, later)).max() <= 1e-5 * max(1, abs(column[0])) + 1e-7


@pytest.mark.parametrize("scaled", [by_standardizer, by_encoder])
@pytest.mark.parametrize("column", [[1e18, 2e18], [1e-18, 2e-18], [1.6e7, 1.6e7 + 4]])
def test_what_varies_is_scaled_to_1_whatever_its_unit(scaled, column):
    # Two values are a deviation each from their mean, exact up to the rounding of float32.
    np.testing.assert_allclose(np.diff(scaled(column, column), axis=0), 2, rtol=1e-5)


@pytest.fixture
def read(tmp_path):
    def reader(content, name="a.csv", **options):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)
        return data.read_csv(tmp_path / name, **options)

    return reader


RAGGED = {
    "a,b\n1,2,3\n": 2,
    "a,b\n1,2\n3\n": 3,
    "a,b\n1,2,\n": 2,
    'a,b\n1,"x\ny"\n3\n': 4,
    'a,b\n1,"x\ny",3\n': 2,
    'a,b\r\n1,"x\r\ny"\r\n\r\n1,2,3\r\n': 5,
    "a,b\r1,2\r3\r": 3,
    "# note\na,b # names\n1,2\n3,4,5\n": 4,
    'a,b\n1,"2\n3,4\n': 2,
    'a,b\n1,"2"3\n': 2,
}


@pytest.mark.parametrize("content", RAGGED)
def test_a_ragged_row_is_refused_with_its_line(read, content):
    with pytest.raises(ValueError, match=rf"read_csv: .*a\.csv.* in line {RAGGED[content]}\b"):
        read(content, comment="#" if content.startswith("#") else None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "got an empty file"),
        ("\n\n", "got an empty file"),
        ("a,b\n", "expected rows in .*a.csv, got none"),
        ("a,b,a\n1,2,3\n", r"columns of .*a.csv with different names, got \['a'\] more than once"),
        ("ä,b\n1,2\n".encode("latin-1"), "expected text in utf-8 at .*a.csv"),
        (gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "compressed file at .*a.csv, got a truncated"),
        (bz2.compress(b"a,b\n1,2\n" * 99)[:-9], "compressed file at .*a.csv, got a truncated"),
        (lzma.compress(b"a,b\n1,2\n" * 99)[:-9], "compressed file at .*a.csv, got a truncated"),
    ],
    ids=["nothing", "blank", "header", "names", "latin-1", "gzip", "bzip2", "xz"],
)
def test_a_file_without_a_table_is_refused_by_its_name(read, content, message):
    with pytest.raises(ValueError, match=f"read_csv: .*{message}"):
        read(content)


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"\xef\xbb\xbfa,b\r\n1,x\r\n\r\n2,y\r\n", {}),
        ("a,b\n1,x\n2,y\n".encode("utf-16"), {"encoding": "utf-16"}),
        (" a ; b \n 1 ; x \n2;y", {"separator": ";"}),
        ("a,b\n1,x|note\n|\n2,y\n", {"comment": "|"}),
        ("1,x\n2,y\n", {"names": ["a", "b"]}),
        ('"a","b"\n"1","x"\n   \n"2", "y"\n', {}),
        (gzip.compress(b"a,b\n1,x\n2,y\n"), {}),
    ],
    ids=["mark", "utf-16", "blanks", "comments", "names", "quotes", "gzip"],
)
def test_one_table_has_many_spellings(read, content, options):
    columns = read(content, **options).columns
    assert {name: column.tolist() for name, column in columns.items()} == {
        "a": [1.0, 2.0],
        "b": ["x", "y"],
    }


ENTRY = st.text("ab1., \"'\n;é", min_size=1, max_size=5).map(str.strip).filter(bool)


@given(st.lists(st.tuples(ENTRY, ENTRY), min_size=1, max_size=8))
def test_what_pandas_writes_is_read_entry_by_entry(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    pandas.DataFrame(rows, columns=["one", "two"]).to_csv(file, index=False)
    read = data.read_csv(file, kinds={"one": "category", "two": "category"}).columns
    written = [[r[i].replace("\r", "\n") for r in rows] for i in (0, 1)]
    assert [read["one"].tolist(), read["two"].tolist()] == written


def test_numbers_are_those_of_pandas(read):
    texts = ["1", "-1.5", "+2e-3", ".5", "3.", "1e308", "0.1234567890123456789", "inf", "-inf"]
    ours = read("\n".join(["a", *texts])).columns["a"]
    theirs = pandas.Series(texts).astype(float)
    np.testing.assert_array_equal(ours, theirs)
    for text in ("1_000", "٣", "0x1", "1e", "--1", "1 2", "True"):
        assert read(f"a\n{text}\n").categorical == ("a",), text


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["1.234,5", "-0,5", "1.234.567"], [1234.5, -0.5, 1234567.0]),
        (["1.23,5", "1"], None),  # no group of three
        (["1.234", "5"], [1234.0, 5.0]),
    ],
)
def test_decimal_and_thousands_are_as_told(read, entries, expected):
    column = read("\n".join(["a", *entries]), separator=";", decimal=",", thousands=".")
    assert column.columns["a"].tolist() == (expected or entries)


TRAIN_AND_TEST = {
    "categories that look like numbers": ("a\n7", "7\n7", [[1, 0], [1, 0]]),
    "leading zeros": ("01\n1\nx", "01\n1", [[1, 0, 0], [0, 1, 0]]),
    "bools with a gap": ("True\nFalse", "True\n?\nFalse", [[0, 1], [0, 0], [1, 0]]),
    "a missing category": ("a\n?\n", "?\n?", [[1, 0], [1, 0]]),
    "integers with a gap": ("1\n3", "1\n?\n3", [[-1], [0], [1]]),
    "numbers, then none at all": ("1\n3", "?\n?", [[0], [0]]),
    "blanks": ("a\n 7 ", "7\n 7\n ?", [[1, 0], [1, 0], [0, 0]]),
}


@pytest.mark.parametrize("name", TRAIN_AND_TEST)
def test_a_column_keeps_the_kind_that_it_was_fitted_with(read, name):
    train, test, expected = TRAIN_AND_TEST[name]
    table = read("c,d\n" + "".join(f"{line},0\n" for line in train.split("\n") if line))
    encoder = data.fit_encoder(table.without("d"))
    later = read("c,d\n" + "".join(f"{line},0\n" for line in test.split("\n"))).take(slice(None))
    assert encoder.apply(later).tolist() == expected
    coded = np.array(expected)
    if encoder.categories:
        known = np.where(coded.any(1), coded.argmax(1) + 1, 0)
        assert encoder.codes(later)[:, 0].tolist() == known.tolist()


def test_a_large_column_is_of_one_kind(read):
    column = read("c\n" + "01\n1\n" * 50_000 + "x\n").columns["c"]
    assert np.unique(column).tolist() == ["01", "1", "x"]


def test_entries_that_are_no_numbers_are_refused_where_numbers_were_fitted(read):
    encoder = data.fit_encoder(read("a,b\n1,2\n3,4\n"))
    with pytest.raises(ValueError, match=r"numbers in column 'b', got 'x' in row 1"):
        encoder.apply(read("a,b\n1,2\n3,x\n"))
    with pytest.raises(ValueError, match=r"finite numbers in column 'b', got inf in row 1"):
        encoder.apply(read("a,b\n1,2\n3,inf\n"))
    with pytest.raises(ValueError, match=r"fit_encoder: expected finite numbers in column 'b'"):
        data.fit_encoder(read("a,b\n1,2\n3,inf\n"))
    with pytest.raises(ValueError, match=r"invert: expected x of shape \(rows, 2\), got \(1, 3\)"):
        encoder.invert(np.zeros((1, 3)))


def test_numbers_without_a_text_are_no_categories():
    encoder = data.fit_encoder(data.Table(columns={"a": np.array(["7", "x"])}))
    with pytest.raises(ValueError, match="expected categories in column 'a', got numbers"):
        encoder.apply(data.Table(columns={"a": np.array([7.0])}))


def test_kinds_are_given_by_the_user(read):
    table = read("zip,n\n01,1\n02,?\n", kinds={"zip": "category", "n": "number"})
    assert table.categorical == ("zip",) and table.columns["zip"].tolist() == ["01", "02"]
    assert read("zip\n01\n").with_kinds({"zip": "category"}).columns["zip"].tolist() == ["01"]
    with pytest.raises(ValueError, match="numbers in column 'n' of .*a.csv, got 'x' in line 3"):
        read("n\n1\nx\n", kinds={"n": "number"})
    for wrong in ({"m": "number"}, {"n": "float"}):
        with pytest.raises(ValueError, match=r"read_csv: expected kinds 'number' or 'category'"):
            read("n\n1\n", kinds=wrong)
        with pytest.raises(ValueError, match="Table.with_kinds: expected"):
            read("n\n1\n").with_kinds(wrong)


@pytest.mark.parametrize("option", ["separator", "comment", "decimal", "thousands"])
def test_options_of_more_than_one_character_are_refused(read, option):
    with pytest.raises(ValueError, match="read_csv: expected"):
        read("a\n1\n", **{option: "ab"})


def test_columns_of_integers_and_bools_are_numbers():
    table = data.Table(columns={"i": np.array([1, 2], np.uint64), "b": np.array([True, False])})
    assert table.numeric == ("i", "b") and table.columns["b"].tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"integers up to 2\^53 in column 'i', got"):
        data.Table(columns={"i": np.array([2**53 + 1])})
