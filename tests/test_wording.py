import pytest

from ttctune.wording import counted, first_line


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (1, "job", "1 job"),
        (2, "job", "2 jobs"),
        (0, "job", "0 jobs"),
        (1, "process", "1 process"),
        (3, "process", "3 processes"),
    ],
)
def test_a_number_stands_with_its_noun_in_the_right_form(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words


@pytest.mark.parametrize(
    ("text", "line"),
    [("one\ntwo", "one"), ("\n  one \n", "one"), ("", "ValueError"), (" \n", "ValueError"), ("9" * 300, "9" * 200)],
)
def test_an_error_is_told_in_one_line(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
