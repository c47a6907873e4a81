"""Numbers with their nouns."""


def counted(number: int, noun: str) -> str:
    """``1 job``, ``3 jobs``, ``0 processes``: a number and its noun, which takes a regular plural."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
