"""Images that stand in two parts of a task."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ttctune.images import decode_whole

#: Part -> the paths of the files in it.
Files = Mapping[str, Sequence[str]]


def doubled_files(parts: Files) -> Iterator[str]:
    """One line for each two parts that hold files of equal content; only files of equal size are read."""
    sizes = {part: [os.path.getsize(file) for file in files] for part, files in parts.items()}
    shared: set[int] = set().union(*(set(sizes[a]) & set(sizes[b]) for a, b in combinations(parts, 2)))
    candidates = {
        part: [file for file, size in zip(files, sizes[part], strict=True) if size in shared]
        for part, files in parts.items()
    }
    yield from _doubled(candidates, _file_digest)


def doubled_pictures(parts: Files) -> Iterator[str]:
    """One line for each two parts that hold equal pictures, however they are stored; every file is decoded.

    Raises:
        DataError: A file is no whole picture.
    """
    yield from _doubled(parts, _pixel_digest)


def _doubled(parts: Files, digest: Callable[[str], bytes]) -> Iterator[str]:
    first: dict[str, dict[bytes, str]] = {}
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for part, files in parts.items():
        own: dict[bytes, str] = {}
        for file in files:
            key = digest(file)
            own.setdefault(key, file)
            for other, known in first.items():
                if key in known:
                    pairs.setdefault((other, part), []).append((known[key], file))
        first[part] = own
    for (other, part), found in pairs.items():
        before, again = found[0]
        which = " = ".join("/".join(Path(file).parts[-2:]) for file in (again, before))
        yield f"{len(found)} {'image' if len(found) == 1 else 'images'} of {part} in {other} too ({which})"


def _file_digest(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()


def _pixel_digest(file: str) -> bytes:
    image = decode_whole(Path(file), file).convert("RGB")
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
