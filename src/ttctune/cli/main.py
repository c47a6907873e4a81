"""The command `ttctune`: its verbs, and what becomes of errors.

Of several processes of a launcher, process 0 alone prints; `fit` is the work of all, every other verb its work alone.

Exit codes: 0 done; 1 refused, with one line on stderr; 2 an unknown flag or a missing argument; 130 interrupted,
143 terminated, both leaving a folder that `--resume` goes on with.
"""

import io
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from types import FrameType
from typing import Any

import typer
from typer.exceptions import TyperException

from ttctune.cli import bench, doctor, embed, evaluate, fit, inspect, merge, models, predict, report, vtab
from ttctune.errors import TtcError
from ttctune.launcher import launch
from ttctune.out_of_memory import is_out_of_memory
from ttctune.version import __version__

INTERRUPTED, TERMINATED = 130, 143
MEMORY_RAN_OUT = (
    "memory ran out; expected room for the model and a batch of images; "
    "try a smaller --image-size or model, or a machine with more memory"
)

app = typer.Typer(
    name="ttctune",
    help="Adapt a pre-trained vision transformer to your images in two stages.",
    epilog="First: ttctune doctor, then ttctune fit --data IMAGES --model deit_tiny_patch16_224",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _alone(command: Callable[..., None]) -> Callable[..., None]:
    """A verb that process 0 does alone; the others are done at once."""

    @wraps(command)
    def wrapped(**values: Any) -> None:
        if launch().main:
            command(**values)

    return wrapped


app.command("fit", epilog=fit.EXAMPLE)(fit.command)
for verb in (evaluate, predict, embed, inspect, merge, bench, report, models, doctor):
    app.command(verb.__name__.rpartition(".")[2], epilog=verb.EXAMPLE)(_alone(verb.command))
app.add_typer(vtab.app, name="vtab", epilog=vtab.EXAMPLE)


@app.callback(invoke_without_command=True)
def version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    """Adapt a pre-trained vision transformer to your images in two stages."""
    if version:
        print(f"ttctune {__version__}")
        raise typer.Exit


class Terminated(BaseException):
    """SIGTERM, as an exception, so that everything is closed on the way out."""


def _say(line: str) -> None:
    if launch().main:
        print(f"ttctune: {line}", file=sys.stderr)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may hold any bytes
    try:
        code = app(args=arguments, prog_name="ttctune", standalone_mode=False)
    except TtcError as error:
        _say(str(error))
        return 1
    except TyperException as error:
        if message := error.format_message():
            _say(f"{message} See `ttctune --help`.")
        return error.exit_code
    except BrokenPipeError:
        sys.stdout = None
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}")
        return 1
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_out_of_memory(error):
            raise
        _say(MEMORY_RAN_OUT)
        return 1
    except Terminated:
        _say("terminated")
        return TERMINATED
    if code == INTERRUPTED:
        _say("interrupted")
    return code if isinstance(code, int) else 0


def script() -> None:
    """Entry point of the installed command."""
    sys.exit(main())
