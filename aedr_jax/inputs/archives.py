"""Tar (WebDataset) and zip archives of images, streamed.

Nothing is extracted to a file, and no name inside an archive is used as a path.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from aedr_jax.errors import SourceError
from aedr_jax.images.codec import MAX_FILE_BYTES, too_large
from aedr_jax.inputs.sources import SUFFIXES, Item, Source, ending, said_of_passed_over, unreadable

__all__ = ["ARCHIVES", "Archives"]

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")
ENCRYPTED = 1  # bit of a zip member's flags
MAX_HEADER = 1 << 20  # bytes of a tar's extended header; honest ones hold a path
ZSTD = b"\x28\xb5\x2f\xfd"
PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class Archives(Source):
    """Members of tar and zip archives that have an image's ending, streamed. An id is ARCHIVE/MEMBER.

    Links, devices, encrypted and too large members are error rows. An archive that cannot be read to its end gives what
    it can, and one without images nothing; both are named in the `RunError` at the end of all.

    Raises:
      SourceError: for two archives of one name, since their members could not be told apart.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        named: dict[str, Path] = {}  # each once, under its first name
        for given in paths:
            named.setdefault(os.path.abspath(given), Path(given))
        self.paths = tuple(named.values())
        self.places = self.paths
        first: dict[str, Path] = {}
        for path in self.paths:
            if first.setdefault(path.name, path) != path:
                raise SourceError(f"{path} and {first[path.name]} have one name, so ids would double; score them apart")

    def __iter__(self) -> Iterator[Item]:
        problems = []
        self._passed = Counter()
        for path in self.paths:
            found, passed = 0, Counter[str]()
            members = _of_zip if path.name.lower().endswith(".zip") else _of_tar
            try:
                for item in members(path, passed):
                    found += 1
                    yield item
                if not found:
                    problems.append(f"{path}: holds no image ({said_of_passed_over(passed) or 'nothing in it'})")
            except Exception as error:  # tarfile, zipfile, zlib, lzma, bz2 and the file system each raise their own
                problems.append(f"{path}: {error or type(error).__name__}")
            self._passed = Counter(self._passed) + passed
        if problems:
            raise unreadable(problems)

    def share(self, index: int, of: int) -> Source:
        """Whole archives, where there are enough."""
        return Archives(self.paths[index::of]) if len(self.paths) >= of else super().share(index, of)

    def pieces(self, size: int) -> Iterator[Source]:
        """One archive each."""
        return (Archives([path]) for path in self.paths)


class _Member(tarfile.TarInfo):
    """tarfile ends quietly at a damaged or missing header; here only the end mark is an end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise
            raise tarfile.ReadError(f"no archive, or damaged or cut off at byte {tar.offset} ({error})") from None

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        # tarfile reads extended headers into memory, whatever size they claim.
        if self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and (
            self.size > MAX_HEADER
        ):
            raise tarfile.ReadError(f"a header of {self.size} bytes at byte {tar.offset}")
        return super()._proc_member(tar)  # type: ignore[misc]

    def _proc_sparse(self, *given: Any) -> Any:
        # Likewise the map of a sparse file, however long; image files have no holes.
        raise tarfile.ReadError(f"a sparse file at byte {given[-1].offset}")

    _proc_gnusparse_10 = _proc_sparse


def _unpacked(path: Path) -> Any:
    """The file, decompressed a little at a time: tarfile itself would hold all that 10 KiB unpack to, which can be
    gigabytes of bzip2."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(ZSTD):
        import pyarrow as pa

        return pa.input_stream(path, compression="zstd", buffer_size=None)
    unpack = next((unpack for magic, unpack in PACKED.items() if start.startswith(magic)), open)
    return unpack(path, "rb")


def _of_tar(path: Path, passed: Counter[str]) -> Iterator[Item]:
    with _unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep a list of all
            if member.isdir():
                continue
            if not member.name.lower().endswith(SUFFIXES):
                passed[ending(member.name)] += 1
                continue
            name, where = f"{path.name}/{member.name}", f"{path}::{member.name}"
            if not member.isreg():
                yield Item(name, where, error="is a link or device, not an image file")
            elif member.size > MAX_FILE_BYTES:
                yield Item(name, where, error=too_large(member.size))
            else:
                file = tar.extractfile(member)
                assert file is not None
                yield Item(name, where, file.read())


def _of_zip(path: Path, passed: Counter[str]) -> Iterator[Item]:
    """Members in the order of the archive's directory, which zipfile holds in memory (about 0.5 KB a member)."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if not member.filename.lower().endswith(SUFFIXES):
                passed[ending(member.filename)] += 1
                continue
            name, where = f"{path.name}/{member.filename}", f"{path}::{member.filename}"
            if stat.S_ISLNK(member.external_attr >> 16):
                yield Item(name, where, error="is a link or device, not an image file")
            elif member.flag_bits & ENCRYPTED:
                yield Item(name, where, error="is encrypted")
            elif member.file_size > MAX_FILE_BYTES:
                yield Item(name, where, error=too_large(member.file_size))
            else:
                yield _unzipped(archive, member, name, where)


def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, where: str) -> Item:
    """A member is read to the size that it states and no further; a damaged one costs no other."""
    try:
        with archive.open(member) as file:
            data = file.read(member.file_size + 1)
    except Exception as error:  # zipfile's, zlib's, lzma's, bz2's
        return Item(name, where, error=f"cannot be unpacked: {error or type(error).__name__}")
    if len(data) != member.file_size:
        return Item(name, where, error=f"cannot be unpacked: {len(data)} bytes of {member.file_size}")
    return Item(name, where, data)
