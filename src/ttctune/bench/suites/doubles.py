"""Images that stand in two parts of a task."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

from ttctune.images import FileSlice, Picture, decode_whole, picture_bytes, picture_name

#: Part -> its pictures, which are files or lie in shards.
Pictures: TypeAlias = Mapping[str, Sequence[Picture]]
#: The pictures of a part, and the position of one.
Place: TypeAlias = tuple[Sequence[Picture], int]


def doubled_files(parts: Pictures) -> Iterator[str]:
    """One line for each two parts that hold files of equal content; only files of equal size are read.

    Raises:
        OSError: A file cannot be read.
    """
    sizes = {part: [_size(picture) for picture in pictures] for part, pictures in parts.items()}
    shared: set[int] = set().union(*(set(sizes[a]) & set(sizes[b]) for a, b in combinations(parts, 2)))
    candidates = {part: [k for k, size in enumerate(sizes[part]) if size in shared] for part in parts}
    yield from _doubled(parts, candidates, _file_digest)


def doubled_pictures(parts: Pictures) -> Iterator[str]:
    """One line for each two parts that hold equal pictures, however they are stored; every file is decoded.

    Raises:
        DataError: A file is no whole picture.
    """
    yield from _doubled(parts, {part: range(len(pictures)) for part, pictures in parts.items()}, _pixel_digest)


def _doubled(
    parts: Pictures, candidates: Mapping[str, Sequence[int]], digest: Callable[[Place], bytes]
) -> Iterator[str]:
    first: dict[str, dict[bytes, Place]] = {}
    pairs: dict[tuple[str, str], list[tuple[Place, Place]]] = {}
    for part, pictures in parts.items():
        own: dict[bytes, Place] = {}
        for k in candidates[part]:
            key = digest((pictures, k))
            own.setdefault(key, (pictures, k))
            for other, known in first.items():
                if key in known:
                    pairs.setdefault((other, part), []).append((known[key], (pictures, k)))
        first[part] = own
    for (other, part), found in pairs.items():
        before, again = found[0]
        which = " = ".join("/".join(Path(picture_name(*place)).parts[-2:]) for place in (again, before))
        yield f"{len(found)} {'image' if len(found) == 1 else 'images'} of {part} in {other} too ({which})"


def _size(picture: Picture) -> int:
    if isinstance(picture, FileSlice):
        return picture.size
    return os.path.getsize(picture) if isinstance(picture, Path) else len(picture_bytes(picture))


def _file_digest(place: Place) -> bytes:
    pictures, k = place
    return hashlib.sha256(picture_bytes(pictures[k])).digest()


def _pixel_digest(place: Place) -> bytes:
    pictures, k = place
    image = decode_whole(pictures[k], picture_name(pictures, k)).convert("RGB")
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
