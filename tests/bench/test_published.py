"""The published numbers add up to the means that were read from papers."""

import pytest
from pydantic import ValidationError

from ttctune.bench.published import Published, published

#: Mean of 19 tasks and mean of 3 groups, as recomputed when the rows were collected.
MEANS = {
    "Full": (65.57, 68.97),
    "Linear": (52.94, 57.64),
    "BitFit": (62.05, 65.22),
    "VPT-Deep": (69.43, 71.97),
    "Adapter-8": (71.44, 73.86),
    "LoRA-8": (72.25, 74.60),
    "AdaptFormer": (72.32, 74.75),
    "NOAH": (73.25, 75.48),
    "SSF": (73.10, 75.69),
    "FacT-TK": (73.23, 75.55),
    "Convpass": (74.45, 76.56),
    "RepAdapter": (73.84, 76.09),
    "SCT": (73.59, 76.00),
}


def test_rows_have_the_means_that_were_computed_when_they_were_collected() -> None:
    whole = {row.method: published().means(row) for row in published().row if row.accuracy}
    assert {m: whole[m] for m in MEANS} == {m: pytest.approx(pair, abs=0.0051) for m, pair in MEANS.items()}
    assert set(whole) == {*MEANS, "VPT-Shallow"}


def test_there_are_19_tasks_in_three_groups_and_every_method_once() -> None:
    data = published()
    assert [len(tasks) for tasks in data.groups.values()] == [7, 4, 8]
    assert len({row.method for row in data.row}) == len(data.row) >= 35
    assert all(any(mean is not None for mean in data.means(row)) for row in data.row)


def test_the_mean_of_groups_is_above_the_mean_of_tasks_everywhere() -> None:
    """A row whose two means were swapped would show."""
    pairs = [published().means(row) for row in published().row]
    assert all(groups > tasks for tasks, groups in pairs if tasks is not None and groups is not None)


@pytest.mark.parametrize(
    "change", [{"sources": ["X"]}, {"marks": ["?"]}, {"accuracy": [1.0]}, {"sources": []}], ids=lambda c: next(iter(c))
)
def test_a_row_without_a_known_source_mark_or_number_for_each_task_is_refused(change: dict[str, object]) -> None:
    values = published().model_dump(mode="json")
    values["row"][0] |= change
    with pytest.raises(ValidationError):
        Published.model_validate(values)
