"""Shares, sums, agreement, and the end of one process being the end of all."""

import os
import time

import pytest
import torch
from tests.processes import Several

from ttctune.errors import DataError, ProcessError
from ttctune.training.device import find_device
from ttctune.training.processes import Processes, join


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("images", [0, 1, 2, 5, 32])
def test_shares_cover_all_images_once_in_order_and_are_even(images, count):
    shares = [list(range(images))[Processes(rank, count).share(images)] for rank in range(count)]
    assert [i for share in shares for i in share] == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert shares[0] or not images


def test_a_single_process_meets_nobody():
    processes, tensor = join(torch.device("cpu")), torch.ones(2)
    with processes.together():
        processes.sum_([tensor])
        assert processes.count == 1 and processes.main and tensor.tolist() == [1, 1]
        assert processes.gather("x") == ["x"] and processes.decide(lambda: 3) == 3
    assert not torch.distributed.is_initialized()


def _exchanges():
    processes = join(find_device("auto"))
    rank = processes.rank
    with processes.together():
        one, two = torch.full((2, 3), rank + 1.0), torch.arange(4, dtype=torch.float64) * 10**rank
        three = torch.tensor(float(rank))
        processes.sum_([one, two, three])
        assert one.tolist() == [[6.0] * 3] * 2 and two.tolist() == [0, 111, 222, 333] and three == 3
        assert processes.gather({"rank": rank}) == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert processes.decide(lambda: f"from {rank}") == "from 0"
    assert torch.get_num_threads() == 1


def test_sums_gathered_values_and_decisions_are_equal_everywhere(tmp_path):
    assert [done.code for done in Several(tmp_path, _exchanges, count=3).ended()] == [0, 0, 0]


def _fails(where):
    """Process 1 fails where others exchange; then all go on together, for nothing is left over."""
    processes = join(find_device("cpu"))
    for kind in (DataError("a broken image", "a whole one", "replace it"), KeyError("x")):
        try:
            with processes.together():
                processes.gather(0)
                if processes.rank == 1:
                    raise kind
                exchange = {"sum": lambda: processes.sum_([torch.ones(3)]), "gather": lambda: processes.gather(1)}
                exchange |= {"decide": lambda: processes.decide(lambda: 1), "end": lambda: None}
                exchange[where]()
        except DataError as error:
            assert processes.rank == 1 or "process 1: a broken image; expected a whole one" in str(error)
        except ProcessError as error:
            assert processes.rank != 1 and "process 1 failed with KeyError: 'x'" in str(error)
        except KeyError:
            assert processes.rank == 1
        else:
            raise AssertionError("went on")
    assert processes.gather(processes.rank) == [0, 1, 2]


@pytest.mark.parametrize("where", ["sum", "gather", "decide", "end"])
def test_an_error_of_one_process_reaches_all_at_whatever_they_exchange_next(tmp_path, where):
    assert [(done.code, done.err) for done in Several(tmp_path, _fails, where, count=3).ended()] == [(0, "")] * 3


def _is_lost():
    processes = join(find_device("cpu"))
    try:
        with processes.together():
            processes.gather(0)
            if processes.rank == 2:
                os._exit(9)
            processes.sum_([torch.ones(3)])
    except ProcessError as error:
        assert "another process of this run was lost" in str(error) and "--resume" in str(error)
        return 7
    return 0


def test_a_lost_process_is_noticed_by_all_within_seconds(tmp_path):
    start = time.monotonic()
    assert [done.code for done in Several(tmp_path, _is_lost, count=3).ended()] == [7, 7, 9]
    assert time.monotonic() - start < 60


def _set_up_otherwise():
    from accelerate import PartialState

    count = os.environ.pop("WORLD_SIZE"), os.environ.pop("LOCAL_RANK")
    assert PartialState(cpu=True).num_processes == 1
    os.environ |= {"WORLD_SIZE": count[0], "LOCAL_RANK": count[1]}
    try:
        join(find_device("cpu"))
    except ValueError as error:
        assert "accelerate set up for 1 of 2 processes" in str(error)
        return 5
    return 0


def test_a_program_that_set_accelerate_up_for_one_process_is_refused(tmp_path):
    assert [done.code for done in Several(tmp_path, _set_up_otherwise).ended()] == [5, 5]
