"""The command of a page that is made from one results folder: FOLDER, and --page FILE to write instead of printing."""

import argparse
from collections.abc import Callable
from pathlib import Path


def page_of(page: Callable[[Path], str], description: str | None) -> None:
    """Make the page of the folder that the command line names.

    Args:
        page: Folder -> Markdown.
        description: For --help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=Path, help="Markdown to write; else it is printed")
    arguments = parser.parse_args()
    give(page(arguments.folder), arguments.page)


def give(text: str, page: Path | None) -> None:
    """Write the text to the page, or print it where there is none."""
    if page:
        page.write_text(text)
    else:
        print(text)
