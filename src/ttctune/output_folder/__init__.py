"""Who may write into an output folder, and how a finished one is replaced: one owner, old or new, never half.

Whatever is not yet, or no longer, part of a folder stands in one place beside it, `.NAME.ttctune`: a run that will
replace it, a folder that is being written whole, and what is being removed. Folders only ever enter and leave by a
rename, so a process may die anywhere; unless an unfinished run stands there, the next one clears the place.
"""

from ttctune.output_folder.contents import ADAPTER, CHECKPOINT, MERGED, RUN, beside, is_result, state_of, unfinished
from ttctune.output_folder.ownership import locked, new_folder
from ttctune.output_folder.refusals import check_apart
from ttctune.output_folder.replacement import discard, publish
from ttctune.output_folder.runs import begin, claimed, finish, read_run, read_unfinished
from ttctune.output_folder.whole import check_replaceable, written_whole

__all__ = [
    "ADAPTER",
    "CHECKPOINT",
    "MERGED",
    "RUN",
    "begin",
    "beside",
    "check_apart",
    "check_replaceable",
    "claimed",
    "discard",
    "finish",
    "is_result",
    "locked",
    "new_folder",
    "publish",
    "read_run",
    "read_unfinished",
    "state_of",
    "unfinished",
    "written_whole",
]
