"""Features of many images on disk, with what is known about each image: .npz for numpy, .csv for anything else."""

import csv
import io
import itertools
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from ttctune.errors import DataError, FolderError
from ttctune.files import replaced

#: What is known about an image (column -> text), and its float32 features.
Row: TypeAlias = tuple[Mapping[str, str], np.ndarray]


def write_features(path: Path, rows: Iterator[Row]) -> tuple[int, int]:
    """Write the rows as they come, so that any number of them fits in memory; the file is whole or as it was.

    Args:
        path: Ends in .npz (arrays `features`, float32 N x D, and one of text for each column) or .csv (a line an
            image: the columns, then f0 to f<D-1>).
        rows: All with the same columns and number of features.

    Returns:
        Images and features, N and D.

    Raises:
        FolderError: The ending is another one, or the file cannot be written.
        DataError: There is no row.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise FolderError(f"features in {path}", f"a file ending in {' or '.join(WRITERS)}", "choose another -o")
    with replaced(path) as file:
        first = next(rows, None)
        if first is None:
            raise DataError("no image that can be read", "at least one", "check the files")
        width = len(first[1])
        return writer(file, list(first[0]), width, itertools.chain([first], rows)), width


def _write_npz(file: BinaryIO, columns: list[str], width: int, rows: Iterator[Row]) -> int:
    texts: dict[str, list[str]] = {name: [] for name in columns}
    count = 0
    with tempfile.TemporaryFile() as values:  # an array's file begins with its length, known at the end only
        for known, features in rows:
            values.write(features.tobytes())
            for name in columns:
                texts[name].append(known[name])
            count += 1
        values.flush()
        matrix = np.memmap(values, dtype=np.float32, mode="r", shape=(count, width))
        arrays = {"features": matrix} | {name: np.array(column) for name, column in texts.items()}
        with zipfile.ZipFile(file, "w") as archive:  # as np.savez does, which keeps the name "file" to itself
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
    return count


def _write_csv(file: BinaryIO, columns: list[str], width: int, rows: Iterator[Row]) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(f"f{index}" for index in range(width))])
    count = 0
    for known, features in rows:
        writer.writerow([*(known[name] for name in columns), *(f"{value:.9g}" for value in features)])
        count += 1
    text.detach()
    return count


WRITERS: Mapping[str, Callable[[BinaryIO, list[str], int, Iterator[Row]], int]] = {
    ".npz": _write_npz,
    ".csv": _write_csv,
}
