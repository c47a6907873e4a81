"""From a copy of VTAB to a page about it, by the commands that a person types."""

import re

import pytest
from tests.bench.vtab_tree import write_vtab_tree

from ttctune.bench.suites import VTAB


@pytest.mark.usefixtures("small")
def test_all_19_tasks_go_through_check_bench_and_report(ttctune, model, tmp_path):
    root, results, page = write_vtab_tree(tmp_path / "vtab"), tmp_path / "results", tmp_path / "report.html"
    checked = ttctune("vtab", "check", root, "--json")
    assert [row["task"] for row in checked.json] == [*VTAB]
    assert all(row["images"] == row["expected"] for row in checked.json)
    flags = ["--suite", "vtab", "--root", root, "--model", model, "--methods", "linear,ttc", "--epochs", "2"]
    bench = ttctune("bench", *flags, "--split", "test", "--precision", "fp32", "-o", results, "--json")
    assert bench.code == 0, bench.err
    assert len([*results.glob("*/*/seed0.json")]) == 2 * len(VTAB)
    again = ttctune("bench", *flags, "--split", "test", "--precision", "fp32", "-o", results, "--quiet")
    assert again.code == 0
    assert ttctune("report", results, "-o", page, "--quiet").code == 0
    text = page.read_text()
    assert all(re.search(rf"\b{task}\b", text) for task in VTAB) and "linear probe" in text
    rows = ttctune("report", results, "--json").json
    assert {(row["task"], row["method"]) for row in rows} == {(task, m) for task in VTAB for m in ("linear", "ttc")}
