"""Where the files of published data sets are: in a folder, or fetched into the user's cache."""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fnn.data._contents import read_bytes

Root = str | Path | None


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file as its publisher has it."""

    url: str
    sha256: str


def find_folder(name: str, files: Iterable[str], root: Root = None) -> Path | None:
    """The folder that holds all of `files`, None if there is none.

    Looked for in `root/name` and `root`; without a root, in the same two under the environment
    variable FNN_DATA, then in the user's cache.

    >>> find_folder('mnist', ['train-images-idx3-ubyte.gz'], '/nowhere') is None
    True
    """
    files = list(files)
    for place in _places(name, root):
        if all((place / file).is_file() for file in files):
            return place
    return None


def find_or_fetch(name: str, remotes: Mapping[str, Remote], root: Root = None) -> Path:
    """The folder that holds all of the files; without a root, what is missing is fetched.

    Fetching shows its progress, and checks each file against its digest.

    Args:
      name: of the folder, such as 'mnist'.
      remotes: names in the folder -> where they come from.

    Raises: FileNotFoundError, which says where was looked, if a file is nowhere and is not to be
      fetched or cannot be; ModuleNotFoundError if fetching needs a package that is not installed.
    """
    found = find_folder(name, remotes, root)
    if found is not None:
        return found
    if root is not None:
        raise FileNotFoundError(not_found(name, remotes, root))
    cache = _cache() / name
    for file, remote in remotes.items():
        if not (cache / file).is_file():
            fetch(name, remote, cache / file)
    return cache


def fetch(name: str, remote: Remote, to: Path) -> None:
    """Fetch a file of the data set `name`.

    Raises: FileNotFoundError if that fails, or the file has another digest.
    """
    try:
        import pooch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"data.load: needs pooch to fetch {name!r}; pip install 'fnn[data]', or name a folder "
            "that has its files by root= or FNN_DATA",
            name="pooch",
        ) from error
    try:
        pooch.retrieve(
            remote.url,
            known_hash=f"sha256:{remote.sha256}",
            fname=to.name,
            path=to.parent,
            progressbar=True,
        )
    except (OSError, ValueError) as error:  # no network, or another digest
        message = f"{not_found(name, [to.name], None)}; fetching {remote.url} failed: {error}"
        raise FileNotFoundError(message) from error


def fetch_archive(name: str, remote: Remote, inside: str) -> Path:
    """The folder `inside` a .tar.gz archive, fetched and unpacked into the user's cache.

    Raises: ValueError for an archive that is damaged, or does not have the folder.
    """
    cache = _cache() / name
    archive = cache / remote.url.rsplit("/", 1)[-1]
    if not (cache / inside).is_dir():
        fetch(name, remote, archive)
        unpack(archive, inside, cache / inside)
    return cache / inside


def unpack(archive: Path, inside: str, to: Path) -> None:
    """The folder `inside` an archive as the folder `to`, whole or not at all.

    Raises: ValueError for an archive that is damaged, or does not have the folder.
    """
    content = io.BytesIO(read_bytes("data.load", archive))  # checked to the end, as a stream is not
    with tempfile.TemporaryDirectory(dir=to.parent) as temporary:
        try:
            with tarfile.open(fileobj=content) as tar:
                tar.extractall(temporary, filter="data")  # nothing outside of the folder
            os.replace(Path(temporary) / inside, to)
        except (tarfile.TarError, FileNotFoundError) as error:
            raise ValueError(
                f"data.load: expected a whole archive with {inside} at {archive}, got a damaged or "
                f"foreign one ({error}); delete it and call again"
            ) from error


def not_found(name: str, files: Iterable[str], root: Root) -> str:
    """What to say of files that are nowhere."""
    looked = ", ".join(map(str, _places(name, root)))
    return (
        f"data.load: expected {', '.join(files)} of {name!r} in one of {looked}, got no such "
        "files; name a folder that has them by root= or the environment variable FNN_DATA"
    )


def _places(name: str, root: Root) -> list[Path]:
    named = root if root is not None else os.environ.get("FNN_DATA")
    places = [] if named is None else [Path(named) / name, Path(named)]
    return places if root is not None else [*places, _cache() / name]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fnn"
