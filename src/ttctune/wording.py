"""Numbers with their nouns, and errors in a line."""


def counted(number: int, noun: str) -> str:
    """``1 job``, ``3 jobs``, ``0 processes``: a number and its noun, which takes a regular plural."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def first_line(error: BaseException, longest: int = 200) -> str:
    """The first line of an error's text that is not blank, cut to a length; its type's name where it has no text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:longest]
