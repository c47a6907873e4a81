"""`ttctune report` as a person types it."""

import subprocess
import sys

import pytest
from tests.bench.results_tree import write_results

KEYS = ["task", "method", "seed", "accuracy", "parameters", "seconds", "protocol"]


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results", tasks={"flowers": "natural"}, methods=("norm", "ttc"), seeds=1)


def test_a_page_and_its_markdown_replace_those_of_earlier(ttctune, results, tmp_path):
    page, markdown = tmp_path / "report.html", tmp_path / "report.md"
    page.write_text("<!doctype html><h1>Benchmark report: old")
    markdown.write_text("# Benchmark report: old")
    outcome = ttctune("report", results, "-o", page)
    assert outcome.code == 0 and f"wrote {page} and {markdown}" in outcome.err and "--images" in outcome.err
    assert page.read_text().startswith("<!doctype html>\n<html") and page.read_text().endswith("</html>\n")
    assert markdown.read_text().startswith("# Benchmark report: folder suite, val split")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md", "results"]


def test_json_is_a_list_of_rows_and_writes_nothing(ttctune, results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = ttctune("report", results, "--json")
    assert [list(row) for row in outcome.json] == [KEYS, KEYS]
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize("name", ["README.md", "README.html"])
def test_a_page_or_markdown_of_something_else_is_not_replaced(ttctune, results, tmp_path, name):
    (tmp_path / name).write_text("# Mine")
    outcome = ttctune("report", results, "-o", tmp_path / "README.html")
    assert outcome.code == 1 and f"{name} is no report" in outcome.err
    assert (tmp_path / name).read_text() == "# Mine" and len([*tmp_path.glob("README.*")]) == 1


def break_format(results):
    header = results / "suite.json"
    header.write_text(header.read_text().replace('"format":1', '"format":9'))


def break_header(results):
    (results / "suite.json").write_text("{")


def break_record(results):
    path = results / "flowers/ttc/seed0.json"
    path.write_bytes(path.read_bytes()[:2000])


def empty(results):
    for path in results.rglob("seed*.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (break_format, "suite.json has format 9; expected format 1"),
        (break_header, "suite.json is damaged"),
        (break_record, "flowers/ttc/seed0.json is damaged"),
        (empty, "has no finished job; expected one at least"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_that_cannot_be_reported_is_one_line(ttctune, results, tmp_path, fault, line):
    fault(results)
    for flags in (["-o", tmp_path / "report.html"], ["--json"]):
        outcome = ttctune("report", results, *flags)
        assert outcome.code == 1 and line in outcome.err and outcome.err.count("\n") == 1 and not outcome.out
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["-o", "report.pdf"], "page report.pdf; expected a name ending in .html"),
        (["--reference", "magic"], "--reference magic; expected one of norm, ttc"),
        (["--images", "nowhere"], "nowhere is no folder"),
        (["-o", "no/such/folder/report.html"], "no/such/folder is no folder"),
    ],
    ids=lambda value: value[0] + value[1] if isinstance(value, list) else "",
)
def test_a_bad_flag_is_one_line_and_writes_nothing(ttctune, results, tmp_path, monkeypatch, flags, line):
    monkeypatch.chdir(tmp_path)
    outcome = ttctune("report", results, *flags)
    assert outcome.code == 1 and line in outcome.err and outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_a_folder_of_something_else_and_a_missing_argument_are_refused(ttctune, tmp_path):
    outcome = ttctune("report", tmp_path)
    assert outcome.code == 1 and "has no suite.json" in outcome.err
    assert ttctune("report").code == 2


@pytest.mark.parametrize("package", ["scipy", "jinja2"])
def test_a_missing_package_is_one_line_that_says_how_to_get_it(results, tmp_path, package):
    program = f"""if True:
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name == {package!r}:
                    raise ModuleNotFoundError(name, name=name)

        sys.meta_path.insert(0, Absent())
        from ttctune.cli.main import main

        assert main(["report", {str(results)!r}, "-o", "report.html"]) == 1
        assert main(["report", {str(results)!r}, "--json"]) == 0
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and f"a page without {package}" in done.stderr and "ttctune[bench]" in done.stderr
