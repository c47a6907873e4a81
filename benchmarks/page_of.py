"""What pages made from one results folder share: the command, FOLDER and --page FILE, and the block that shows it."""

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


def commands_of(description: str | None) -> list[str]:
    """Lines of a Markdown block of the commands in a benchmark's docstring: its second paragraph, not indented."""
    commands = (description or "").split("\n\n")[1]
    return ["```", *(line.removeprefix("    ") for line in commands.splitlines()), "```"]


def give(text: str, page: Path | None) -> None:
    """Write the text to the page, or print it where there is none."""
    if page:
        page.write_text(text)
    else:
        print(text)
