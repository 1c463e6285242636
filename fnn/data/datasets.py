"""Published data sets by name: read from a folder, or fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fnn.data import cifar
from fnn.data._contents import read_text
from fnn.data._files import Remote, Root, fetch_archive, find_folder, find_or_fetch, not_found
from fnn.data.csv import read_csv
from fnn.data.idx import read_idx
from fnn.types import Batch


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set as published, neither scaled nor shuffled nor split.

    x: uint8 images (n, height, width[, channels]), float32 rows (n, features), or a Table.
    y: int32 labels (n,), or float32 values (n,).
    """

    train: Batch
    test: Batch | None = None  # where one is published
    classes: tuple[str, ...] = ()  # the name of each label
    features: tuple[str, ...] = ()  # the name of each column of x


def load(name: str, root: Root = None) -> Any:
    """A published data set.

    From scikit-learn: 'digits', 'iris', 'wine', 'breast_cancer', 'diabetes'. From a folder, or
    fetched: 'mnist', 'fashion_mnist', 'cifar10', 'adult', 'tiny_shakespeare', 'names'.

    Args:
      root: the folder to search; without it, the environment variable FNN_DATA, then the user's
        cache, into which missing files are fetched and checked against their published digest.

    Returns: a Dataset; for 'tiny_shakespeare' the text, for 'names' a tuple of names.
    Raises: ValueError for another name; FileNotFoundError for files that are not found and cannot
      be fetched; ModuleNotFoundError without the extra 'data'.

    >>> iris = load('iris')
    >>> iris.train.x.shape, iris.classes
    ((150, 4), ('setosa', 'versicolor', 'virginica'))
    """
    if name not in LOADERS:
        raise ValueError(
            f"data.load: expected one of {sorted(LOADERS)}, got {name!r}; for files of your own "
            "use read_idx, read_csv, read_cifar_binary or numpy.load"
        )
    return LOADERS[name](root)


def _from_sklearn(name: str) -> Callable[[Root], Dataset]:
    def loader(root: Root) -> Dataset:
        try:
            from sklearn import datasets
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"data.load: needs scikit-learn for {name!r}; pip install 'fnn[data]'",
                name="sklearn",
            ) from error
        bunch = getattr(datasets, f"load_{name}")()
        labels = hasattr(bunch, "target_names")
        x = bunch.images if name == "digits" else bunch.data
        y = bunch.target.astype(np.int32 if labels else np.float32)
        return Dataset(
            train=Batch(np.asarray(x, np.float32), y),
            classes=tuple(map(str, bunch.target_names)) if labels else (),
            features=() if name == "digits" else tuple(map(str, bunch.feature_names)),
        )

    return loader


def _idx_set(
    folder: str, base: str, digests: tuple[str, str, str, str], classes: tuple[str, ...]
) -> Callable[[Root], Dataset]:
    names = (
        "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
    )  # fmt: skip
    files = {
        name: Remote(url=base + name, sha256=digest)
        for name, digest in zip(names, digests, strict=True)
    }

    def loader(root: Root) -> Dataset:
        found = find_or_fetch(folder, files, root)
        arrays = [read_idx(found / name) for name in names]
        train, test = (
            Batch(x, y.astype(np.int32)) for x, y in zip(arrays[::2], arrays[1::2], strict=True)
        )
        return Dataset(train=train, test=test, classes=classes)

    return loader


_CIFAR_ARCHIVE = Remote(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
_TRAIN_FILES = [f"data_batch_{i}" for i in range(1, 6)]


def _cifar10(root: Root) -> Dataset:
    sheets = find_folder("cifar10", ["train_exact_00.webp", "train_labels.u8"], root)
    pickles = find_folder("cifar10", [*_TRAIN_FILES, "test_batch"], root)
    if sheets is not None:
        train = cifar.read_sheets(sheets, "train_exact_*.webp", "train_labels.u8")
        test = cifar.read_sheets(sheets, "test_exact_*.webp", "test_labels.u8")
    elif pickles is not None:
        train = cifar.read_cifar_python(*(pickles / name for name in _TRAIN_FILES))
        test = cifar.read_cifar_python(pickles / "test_batch")
    else:
        names = [f"{name}.bin" for name in _TRAIN_FILES]
        records = find_folder("cifar10", [*names, "test_batch.bin"], root)
        if records is None and root is not None:
            raise FileNotFoundError(not_found("cifar10", [*names, "test_batch.bin"], root))
        if records is None:
            records = fetch_archive("cifar10", _CIFAR_ARCHIVE, "cifar-10-batches-bin")
        train = cifar.read_cifar_binary(*(records / name for name in names))
        test = cifar.read_cifar_binary(records / "test_batch.bin")
    return Dataset(train=train, test=test, classes=cifar.CLASSES)


_ADULT = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"
_ADULT_FILES = {
    "adult.data": Remote(
        url=_ADULT + "adult.data",
        sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    ),
    "adult.test": Remote(
        url=_ADULT + "adult.test",
        sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
    ),
}
_ADULT_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation",
    "relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week",
    "native-country", "income",
)  # fmt: skip


def _adult(root: Root) -> Dataset:
    folder = find_or_fetch("adult", _ADULT_FILES, root)
    train, test = (_adult_part(folder / name) for name in _ADULT_FILES)
    return Dataset(train=train, test=test, classes=("<=50K", ">50K"), features=_ADULT_COLUMNS[:-1])


def _adult_part(path: Path) -> Batch:
    table = read_csv(path, names=_ADULT_COLUMNS, comment="|")
    rich = np.char.startswith(table.columns["income"], ">50K")  # the test part writes '>50K.'
    return Batch(table.without("income"), rich.astype(np.int32))


_SHAKESPEARE = {
    "input.txt": Remote(
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
}
_NAMES = {
    "names.txt": Remote(
        url="https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    )
}


def _tiny_shakespeare(root: Root) -> str:
    folder = find_or_fetch("tinyshakespeare", _SHAKESPEARE, root)
    return read_text("data.load", folder / "input.txt")


def _names(root: Root) -> tuple[str, ...]:
    folder = find_or_fetch("makemore-names", _NAMES, root)
    return tuple(read_text("data.load", folder / "names.txt").split())


LOADERS: dict[str, Callable[[Root], Any]] = {
    **{
        name: _from_sklearn(name)
        for name in ("digits", "iris", "wine", "breast_cancer", "diabetes")
    },
    "mnist": _idx_set(
        "mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        tuple("0123456789"),
    ),
    "fashion_mnist": _idx_set(
        "fashion-mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),  # fmt: skip
    "cifar10": _cifar10,
    "adult": _adult,
    "tiny_shakespeare": _tiny_shakespeare,
    "names": _names,
}
