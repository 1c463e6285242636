"""Locations of published data sets: a folder, or files fetched into the user's cache."""

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
    """The address and the digest of a published file."""

    url: str
    sha256: str


def find_folder(name: str, files: Iterable[str], root: Root = None) -> Path | None:
    """The folder that holds all of `files`, or None.

    Searched in `root/name` and `root`; without a root in the same two under the environment
    variable FNN_DATA, then in the user's cache.
    """
    files = list(files)
    found = (f for f in _folders(name, root) if all((f / file).is_file() for file in files))
    return next(found, None)


def find_or_fetch(name: str, remotes: Mapping[str, Remote], root: Root = None) -> Path:
    """The folder that holds all of the files; without a root, missing ones are fetched.

    Args:
      name: of the folder, such as 'mnist'.
      remotes: file name -> address and digest.

    Raises: FileNotFoundError, which lists the folders searched; ModuleNotFoundError without pooch.
    """
    found = find_folder(name, remotes, root)
    if found is not None:
        return found
    if root is not None:
        raise FileNotFoundError(not_found(name, remotes, root))
    cache = _cache() / name
    for file, remote in remotes.items():
        if not (cache / file).is_file():
            _fetch(name, remote, cache / file)
    return cache


def fetch_archive(name: str, remote: Remote, inside: str) -> Path:
    """The folder `inside` a .tar.gz archive, fetched and unpacked into the user's cache."""
    cache = _cache() / name
    archive = cache / remote.url.rsplit("/", 1)[-1]
    if not (cache / inside).is_dir():
        _fetch(name, remote, archive)
        unpack(archive, inside, cache / inside)
    return cache / inside


def _fetch(name: str, remote: Remote, to: Path) -> None:
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


def unpack(archive: Path, inside: str, to: Path) -> None:
    """Extracts the folder `inside` an archive as the folder `to`, atomically.

    Raises: ValueError for an archive that is damaged, or lacks the folder.
    """
    # Read whole first: decompressing a stream would not verify its checksum.
    content = io.BytesIO(read_bytes("data.load", archive))
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
    """The message for files that are in none of the folders searched."""
    searched = ", ".join(map(str, _folders(name, root)))
    return (
        f"data.load: expected {', '.join(files)} of {name!r} in one of {searched}, got no such "
        "files; name a folder that has them by root= or the environment variable FNN_DATA"
    )


def _folders(name: str, root: Root) -> list[Path]:
    named = root if root is not None else os.environ.get("FNN_DATA")
    folders = [] if named is None else [Path(named) / name, Path(named)]
    return folders if root is not None else [*folders, _cache() / name]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fnn"
