"""Small shards, written as WebDataset writes them."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from .pictures import draw


def png(label: int = 0, seed: int = 0) -> bytes:
    """The bytes of a picture."""
    file = io.BytesIO()
    draw(label, seed=seed).save(file, "PNG")
    return file.getvalue()


def sample(key: str, label: object = "cat", field: str = "cls", seed: int = 0) -> list[tuple[str, bytes]]:
    """Picture and label of one key."""
    return [(f"{key}.png", png(seed=seed)), (f"{key}.{field}", str(label).encode())]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], **settings: object) -> Path:
    """Write members, names and contents, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **settings) as tar:  # type: ignore[call-overload]
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def write_as_shards(tree: Path, folder: Path, each: int = 4) -> Path:
    """The images of a folder tree, in its order, as shards of `each` samples; part folders become parts of names."""
    tops = sorted(path for path in tree.iterdir() if path.is_dir())
    parts = {"train": tree} if any(tops[0].glob("*.png")) else {top.name: top for top in tops}
    for part, top in parts.items():
        files = sorted(top.rglob("*.png"))
        for start in range(0, len(files), each):
            members = []
            for number, file in enumerate(files[start : start + each], start):
                members += [(f"{number:06d}.png", file.read_bytes()), (f"{number:06d}.cls", file.parent.name.encode())]
            write_tar(folder / f"{part}-{start // each:06d}.tar", members)
    return folder
