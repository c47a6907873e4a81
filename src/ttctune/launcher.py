"""What a launcher (torchrun, accelerate launch) says about the processes, in the variables that both set."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that were started together.

    Attributes:
        rank: Its number, 0 to count - 1.
        count: How many there are on all machines.
        local_rank: Its number on this machine.
    """

    rank: int
    count: int
    local_rank: int

    @property
    def main(self) -> bool:
        """Whether this is the process that decides, prints and writes."""
        return self.rank == 0


def launch() -> Launch:
    """What the launcher said; one process where there is none."""
    count = _number("WORLD_SIZE", 1)
    return Launch(_number("RANK", 0), count, _number("LOCAL_RANK", 0)) if count > 1 else Launch(0, 1, 0)


def _number(variable: str, default: int) -> int:
    given = os.environ.get(variable, "")
    return int(given) if given.isdigit() else default
