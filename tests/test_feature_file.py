"""Features on disk: whole, in order, and the same numbers again."""

import csv

import numpy as np
import pytest

from ttctune.errors import DataError, FolderError
from ttctune.feature_file import write_features


def rows(n=5, width=3):
    values = np.random.default_rng(0).standard_normal((n, width)).astype(np.float32)
    known = [{"file": f'{i}, "a".png', "class": "caf\udce9" if i else "b"} for i in range(n)]
    return known, values


@pytest.mark.parametrize("ending", [".npz", ".csv", ".NPZ"])
def test_features_and_columns_are_read_back_as_they_were(tmp_path, ending):
    known, values = rows()
    file = tmp_path / f"x{ending}"
    file.write_bytes(b"old")
    assert write_features(file, iter(zip(known, values, strict=True))) == (5, 3)
    if ending == ".csv":
        read = list(csv.DictReader(file.open()))
        got = np.array([[row[f"f{i}"] for i in range(3)] for row in read], dtype=np.float32)
        assert [row["file"] for row in read] == [row["file"] for row in known] and read[1]["class"] == "caf\\udce9"
    else:
        read = np.load(file)
        got = read["features"]
        assert read["file"].tolist() == [row["file"] for row in known]
        assert read["class"].tolist() == [row["class"] for row in known]
    assert got.dtype == np.float32 and np.array_equal(got, values)
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_a_failure_half_way_leaves_the_old_file(tmp_path):
    known, values = rows()

    def broken():
        yield known[0], values[0]
        raise DataError("a bad image", "a good one", "look")

    for name in ("x.npz", "x.csv"):
        (tmp_path / name).write_bytes(b"old")
        with pytest.raises(DataError, match="a bad image"):
            write_features(tmp_path / name, broken())
        assert (tmp_path / name).read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_no_rows_another_ending_or_no_folder_are_refused(tmp_path):
    known, values = rows()
    with pytest.raises(DataError, match="no image"):
        write_features(tmp_path / "x.npz", iter(()))
    for name, said in (("x.parquet", ".npz or .csv"), ("x", ".npz"), ("nowhere/x.csv", "cannot write")):
        with pytest.raises(FolderError, match=said):
            write_features(tmp_path / name, iter(zip(known, values, strict=True)))
    assert not list(tmp_path.iterdir())
