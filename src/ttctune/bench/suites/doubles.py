"""Images that stand in two parts of a task."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

from ttctune.images import Chosen, FileSlice, Picture, decode_whole, picture_bytes, picture_name
from ttctune.wording import counted

#: Part -> its pictures, which are files or lie in shards.
Pictures: TypeAlias = Mapping[str, Sequence[Picture]]


def doubled_files(parts: Pictures) -> Iterator[str]:
    """One line for each two parts that hold files of equal content; only files of equal size are read.

    Raises:
        OSError: A file cannot be read.
    """
    sizes = {part: [_size(picture) for picture in pictures] for part, pictures in parts.items()}
    shared: set[int] = set().union(*(set(sizes[a]) & set(sizes[b]) for a, b in combinations(parts, 2)))
    candidates = {
        part: Chosen(pictures, [k for k, size in enumerate(sizes[part]) if size in shared])
        for part, pictures in parts.items()
    }
    yield from _doubled(candidates, _file_digest)


def doubled_pictures(parts: Pictures) -> Iterator[str]:
    """One line for each two parts that hold equal pictures, however they are stored; every file is decoded.

    Raises:
        DataError: A file is no whole picture.
    """
    yield from _doubled(parts, _pixel_digest)


def _doubled(parts: Pictures, digest: Callable[[Picture, str], bytes]) -> Iterator[str]:
    first: dict[str, dict[bytes, str]] = {}
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for part, pictures in parts.items():
        own: dict[bytes, str] = {}
        for k, picture in enumerate(pictures):
            name = picture_name(pictures, k)
            key = digest(picture, name)
            own.setdefault(key, name)
            for other, known in first.items():
                if key in known:
                    pairs.setdefault((other, part), []).append((known[key], name))
        first[part] = own
    for (other, part), found in pairs.items():
        before, again = found[0]
        which = " = ".join("/".join(Path(name).parts[-2:]) for name in (again, before))
        yield f"{counted(len(found), 'image')} of {part} in {other} too ({which})"


def _size(picture: Picture) -> int:
    if isinstance(picture, FileSlice):
        return picture.size
    return os.path.getsize(picture) if isinstance(picture, Path) else len(picture_bytes(picture))


def _file_digest(picture: Picture, name: str) -> bytes:
    return hashlib.sha256(picture_bytes(picture)).digest()


def _pixel_digest(picture: Picture, name: str) -> bytes:
    image = decode_whole(picture, name).convert("RGB")
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
