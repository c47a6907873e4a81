import pytest

from ttctune.wording import counted


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
