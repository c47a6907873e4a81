"""Where the files inside an uncompressed tar lie. Headers are read, nothing is unpacked, and nothing odd is let by."""

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ttctune.errors import DataError

#: A file inside a shard may be as large as this; no picture that is accepted needs more.
LARGEST_MEMBER = 1 << 30
#: A long name, or a record of extra properties.
LARGEST_EXTRA = 1 << 16
_BLOCK = tarfile.BLOCKSIZE
_READ = 1 << 20
_EXPECTED = "a whole, uncompressed tar of files"
_EXTRA_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_FILE_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_OTHER_TYPES = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_RECORD = re.compile(rb"([0-9]{1,6}) ([^=\n]+)=")


class Member(NamedTuple):
    """A file inside a tar.

    Attributes:
        name: Relative, without "./" in front.
        offset: Of its first byte.
        size: In bytes.
    """

    name: str
    offset: int
    size: int


class Tar:
    """An uncompressed tar, opened to see what is in it.

    Python's tarfile takes a damaged header for the end of the archive, and would give fewer images without a word;
    so the walk from header to header is done here, and it ends at the end mark or with an error.

    Raises:
        DataError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})", "check the path and its permissions") from None
        self._size = os.fstat(self._handle).st_size

    def __enter__(self) -> "Tar":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def members(self) -> Iterator[Member]:
        """The files in it, in its order; folders are left out.

        Raises:
            DataError: It is compressed, cut short or damaged, or holds a link, a device, an absurd size, or a name
                that is absolute or climbs.
        """
        if self._read(0, 6).startswith(_COMPRESSED):
            raise self._error(
                "is compressed", "unpack it with gunzip, unxz or the like; pictures are compressed already"
            )
        extra: dict[str, str] = {}
        position = 0
        while (header := self._header(position)) is not None:
            start = position + _BLOCK
            if header.type in _FILE_TYPES:
                header.size = int(extra.get("size", header.size))
            elif header.type == tarfile.DIRTYPE:
                header.size = 0  # whatever it says, nothing follows
            self._check_size(header, start)
            position = start + -(-header.size // _BLOCK) * _BLOCK
            if header.type in _EXTRA_TYPES:
                extra |= self._properties(header, start)
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                extra["path"] = os.fsdecode(self._extra(header, start).rstrip(b"\0"))
            elif header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                name = self._checked_name(extra.get("path", header.name), header.type)
                if header.type in _FILE_TYPES:
                    yield Member(name, start, header.size)
                extra = {}
        self._check_end(position)

    def content(self, member: Member) -> bytes:
        """The bytes of a file in it."""
        return self._read(member.offset, member.size)

    def _header(self, position: int) -> tarfile.TarInfo | None:
        """The header there; None at the end mark."""
        block = self._read(position, _BLOCK)
        if len(block) < _BLOCK:
            raise self._error("is cut short" if self._size else "is empty", "fetch or write it again")
        if not block.strip(b"\0"):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError):
            problem = f"has a damaged header at byte {position}" if position else "is no tar"
            raise self._error(problem, "fetch or write it again") from None

    def _check_size(self, header: tarfile.TarInfo, start: int) -> None:
        if not 0 <= header.size <= LARGEST_MEMBER:
            problem = f"has a file of {header.size} bytes, {header.name[:80]!r}"
            raise self._error(problem, f"leave out what is larger than {LARGEST_MEMBER >> 20} MiB")
        if start + header.size > self._size:
            raise self._error(f"is cut short in {header.name[:80]!r}", "fetch or write it again")

    def _checked_name(self, name: str, kind: bytes) -> str:
        if kind not in (*_FILE_TYPES, tarfile.DIRTYPE):
            what = _OTHER_TYPES.get(kind, f"a member of the unknown type {kind!r}")
            raise self._error(f"holds {what}, {name[:80]!r}", "leave it out, or put the file in its place")
        if name.startswith("/") or ".." in name.split("/"):
            raise self._error(f"holds {name[:80]!r}", "write it again with names relative to its folder, without '..'")
        return name.removeprefix("./")

    def _properties(self, header: tarfile.TarInfo, start: int) -> dict[str, str]:
        """The path and size that a POSIX extended header gives to the next member."""
        records = self._extra(header, start).rstrip(b"\0")
        found: dict[str, str] = {}
        position = 0
        while position < len(records):
            match = _RECORD.match(records, position)
            end = position + int(match[1]) if match else 0
            if match is None or not match.end() < end <= len(records) or records[end - 1 : end] != b"\n":
                raise self._error(f"has a damaged extended header at byte {start}", "fetch or write it again")
            found[os.fsdecode(match[2])] = os.fsdecode(records[match.end() : end - 1])
            position = end
        if any(key.startswith("GNU.sparse.") for key in found):
            raise self._error("holds a sparse file", "write it again without --sparse")
        if not re.fullmatch(r"[0-9]{1,18}", found.get("size", "0")):
            raise self._error(f"has a damaged extended header at byte {start}", "fetch or write it again")
        return {key: found[key] for key in ("path", "size") if key in found}

    def _extra(self, header: tarfile.TarInfo, start: int) -> bytes:
        if header.size > LARGEST_EXTRA:
            raise self._error(f"has an extended header of {header.size} bytes", "write it again without attributes")
        return self._read(start, header.size)

    def _check_end(self, position: int) -> None:
        """Behind the end mark nothing may follow: in joined archives the second would go unseen."""
        while chunk := self._read(position, _READ):
            if chunk.strip(b"\0"):
                raise self._error(
                    "has more behind its end mark", "join archives with tar --concatenate, or keep them apart"
                )
            position += len(chunk)

    def _read(self, position: int, size: int) -> bytes:
        try:
            return os.pread(self._handle, size, position)
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})", "check the disk") from None

    def _error(self, problem: str, advice: str) -> DataError:
        return DataError(f"shard {self.path} {problem}", _EXPECTED, advice)
