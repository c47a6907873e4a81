"""Every error a person can meet, in one tree.

A message has three parts: what was given, what was expected, what to do. Each class also derives from the
builtin that a caller would catch.
"""


class TtcError(Exception):
    """Base of every error raised on purpose; its text is one line that a person can act on.

    Args:
        given: What was found, with its name and value.
        expected: What would have been right.
        advice: What to do now.
    """

    def __init__(self, given: str, expected: str, advice: str) -> None:
        super().__init__(given, expected, advice)
        self.given, self.expected, self.advice = given, expected, advice

    def __str__(self) -> str:
        line = f"{self.given}; expected {self.expected}; {self.advice}"
        return " ".join(line.split())


class RecipeError(TtcError, ValueError):
    """A setting has a value it cannot have.

    Args:
        given: What was found, with its name and value.
        expected: What would have been right.
        advice: What to do now.
        settings: Names of the settings that are to blame, where they are known.
    """

    def __init__(self, given: str, expected: str, advice: str, settings: tuple[str, ...] = ()) -> None:
        super().__init__(given, expected, advice)
        self.settings = settings


class DataError(TtcError, ValueError):
    """The images, labels or lists handed over cannot be used."""


class BackboneError(TtcError, ValueError):
    """The model is unknown, or is of a kind that cannot be adapted."""


class WeightsError(BackboneError):
    """The weights file cannot be read, or does not fit the model."""


class SiteError(BackboneError):
    """A layer where channels should be tuned is missing, or never acts."""


class ScoreError(TtcError, ValueError):
    """The importance scores do not decide which channels to tune."""


class MergeError(TtcError, ValueError):
    """No plain model with equal outputs exists."""


class AdapterError(TtcError, ValueError):
    """An adapter folder is damaged, too new, or made for another backbone."""


class RecordError(TtcError, ValueError):
    """A record of a benchmark is damaged, of another format, or contradicts itself."""


class FolderError(TtcError, OSError):
    """An output folder cannot be used as it is."""

    def __init__(self, given: str, expected: str, advice: str) -> None:
        super().__init__(given, expected, advice)
        self.errno = self.strerror = self.filename = None  # OSError would take them from the texts


class TrainingError(TtcError, RuntimeError):
    """Training cannot go on: the loss is not finite, or memory ran out."""


class DivergedError(TrainingError):
    """A loss or a parameter is not finite any more."""


class ProcessError(TtcError, RuntimeError):
    """Another process of a run on several ended, failed, or did not answer."""


class PackageError(TtcError, ImportError):
    """A package that only some users need is not installed."""
