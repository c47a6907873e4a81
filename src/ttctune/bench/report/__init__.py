"""The report of a results folder: one page that needs no network, the same as Markdown, and rows for programs."""

from pathlib import Path

from ttctune.bench.report.rows import rows_of
from ttctune.bench.report.runs import Results, read_results
from ttctune.errors import FolderError, RecipeError
from ttctune.files import write_atomically

__all__ = ["Results", "read_results", "rows_of", "write_report"]

ENDINGS = (".html", ".htm")
#: What a page needs beyond a plain installation.
EXTRA = ("jinja2", "scipy")
#: What every report has near its beginning, as a page and as Markdown.
TITLES = {True: b"<h1>Benchmark report: ", False: b"# Benchmark report: "}


def write_report(results: Results, out: Path, reference: str | None = None, images: Path | None = None) -> Path:
    """Write the page, and the Markdown beside it.

    Args:
        results: What `read_results` found.
        out: The page; ends in .html.
        reference: The method that the others are compared with; None takes ours, else the best.
        images: Folder of the tasks' images, for pictures of mistakes; None leaves them out.

    Returns:
        The file of the Markdown.

    Raises:
        FolderError: Another ending, `images` is no folder, or a file cannot be written, or one of the two would
            replace what is no report.
        RecipeError: No run is of the method `reference`, or the extra `bench` is not installed.
    """
    methods = sorted({run.method for run in results.runs})
    if out.suffix.lower() not in ENDINGS:
        raise FolderError(f"page {out}", f"a name ending in {' or '.join(ENDINGS)}", "change -o")
    if reference is not None and reference not in methods:
        raise RecipeError(f"--reference {reference}", f"one of {', '.join(methods)}", "change --reference")
    for folder, what, flag in (
        (images, "the --root of the benchmark", "--images"),
        (out.parent, "one to write into", "-o"),
    ):
        if folder is not None and not folder.is_dir():
            raise FolderError(f"{folder} is no folder", what, f"change {flag}")
    markdown = out.with_suffix(".md")
    for file in (out, markdown):
        if file.exists() and not (file.is_file() and TITLES[file == out] in file.read_bytes()):
            raise FolderError(
                f"{file} is no report", f"{out} and {markdown} absent, or of an earlier report", "change -o"
            )
    try:
        from ttctune.bench.report.page import as_html, as_markdown
        from ttctune.bench.report.tables import tables_of
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        advice = "pip install 'ttctune[bench]', or --json"
        raise RecipeError(f"a page without {error.name}", "the extra `bench`", advice) from error
    from ttctune.bench.methods import titles_of

    tables = tables_of(results, titles_of(methods), reference)
    write_atomically(out, as_html(results, tables, images))
    write_atomically(markdown, as_markdown(results, tables))
    return markdown
