"""Images that stand in two parts of a task."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ttctune.images import decode_whole

#: Part -> the files in it.
Files = Mapping[str, Sequence[Path]]


def doubled_files(parts: Files) -> Iterator[str]:
    """One line for each two parts that hold files of equal content; only files of equal size are read."""
    sizes = {part: {file.stat().st_size for file in files} for part, files in parts.items()}
    shared: set[int] = set().union(*(sizes[a] & sizes[b] for a, b in combinations(parts, 2)))
    candidates = {part: [f for f in files if f.stat().st_size in shared] for part, files in parts.items()}
    yield from _doubled(candidates, lambda file: hashlib.sha256(file.read_bytes()).digest())


def doubled_pictures(parts: Files) -> Iterator[str]:
    """One line for each two parts that hold equal pictures, however they are stored; every file is decoded.

    Raises:
        DataError: A file is no whole picture.
    """
    yield from _doubled(parts, _pixel_digest)


def _doubled(parts: Files, digest: Callable[[Path], bytes]) -> Iterator[str]:
    first: dict[str, dict[bytes, Path]] = {}
    pairs: dict[tuple[str, str], list[tuple[Path, Path]]] = {}
    for part, files in parts.items():
        own: dict[bytes, Path] = {}
        for file in files:
            key = digest(file)
            own.setdefault(key, file)
            for other, known in first.items():
                if key in known:
                    pairs.setdefault((other, part), []).append((known[key], file))
        first[part] = own
    for (other, part), found in pairs.items():
        before, again = found[0]
        which = f"{again.parent.name}/{again.name} = {before.parent.name}/{before.name}"
        yield f"{len(found)} {'image' if len(found) == 1 else 'images'} of {part} in {other} too ({which})"


def _pixel_digest(file: Path) -> bytes:
    image = decode_whole(file, str(file)).convert("RGB")
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
