"""Finding image files: below a folder, or named by a list."""

import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from ttctune.errors import DataError
from ttctune.output_folder import is_result

#: Endings of image files, compared in lower case.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def sub_folders(folder: Path) -> list[Path]:
    """Folders directly inside, hidden ones left out, sorted by name."""
    return sorted(p for p in _entries(folder) if p.is_dir())


def data_folders(folder: Path) -> list[Path]:
    """As `sub_folders`, but for what ttctune wrote there: a run beside the classes is none of them."""
    return [path for path in sub_folders(folder) if not _is_output(path)]


def files_in(folder: Path) -> list[Path]:
    """Files directly inside, hidden ones left out, sorted by name."""
    return sorted(p for p in _entries(folder) if p.is_file())


def image_files(folder: Path) -> list[Path]:
    """Every image file below a folder, at any depth, in a fixed order; hidden files and folders are left out.

    Linked folders are followed, each real folder once. A link to nothing counts as a file, which then cannot be read.
    """
    seen = set()
    files: list[Path] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(here):
            if entry.is_dir():
                waiting.append(entry)
            elif entry.suffix.lower() in IMAGE_ENDINGS and (entry.is_file() or entry.is_symlink()):
                files.append(entry)
    return sorted(files)


def pictures_in(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, folders as every image file below them.

    Raises:
        DataError: A path is not there, or a folder holds no images.
    """
    files: list[Path] = []
    for path in paths:
        found = image_files(path) if path.is_dir() else [path] if path.exists() else []
        if not found:
            problem = "has no images in it" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {problem}", "an image, or a folder of images", "check the path")
        files += found
    return files


def _is_output(folder: Path) -> bool:
    """Whether a folder is a run or a merged model, or holds such folders and no images beside them."""
    found = False
    try:
        if is_result(folder):
            return True
        with os.scandir(folder) as entries:  # a class is told by its first image, without a list of all
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                ours = entry.is_dir() and is_result(Path(entry))
                image = entry.name.lower().endswith(IMAGE_ENDINGS)
                if not ours and (os.listdir(entry) if entry.is_dir() else image):
                    return False
                found = found or ours
    except OSError:
        return False  # whoever reads it says what is wrong
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        advice = "check its permissions"
        raise DataError(f"folder {folder} cannot be read ({error.strerror})", "a readable folder", advice) from None


class ListedFiles:
    """Files that a list inside a data folder names; each must exist and lie inside that folder.

    Args:
        folder: The data folder, to which names in the list are relative.
        list_name: File name of the list, for messages.
    """

    def __init__(self, folder: Path, list_name: str) -> None:
        self.folder, self.list_name = folder, list_name
        self._root = folder.resolve()
        # Resolving is many system calls a file; the files of a list share few parents.
        self._inside: dict[str, bool] = {}

    def find(self, name: str, line: int) -> str:
        """The path of a listed file.

        Args:
            name: The file as the list names it, relative to the data folder, with forward slashes.
            line: Line number in the list, from 1.

        Returns:
            The path of an existing file.

        Raises:
            DataError: The name is absolute, climbs with "..", leads outside through a link, or names no file.
        """
        if (
            name.startswith("/")
            or (set(name) & set(":\\") and PureWindowsPath(name).drive)
            or ".." in name.split("/")
            or "\0" in name
        ):
            expected = f"a path relative to {self.folder}, without '..'"
            raise DataError(f"{self._where(line)} names {name!r}", expected, "rewrite it")
        path = os.path.join(self.folder, os.path.normpath(name))
        try:
            mode = os.lstat(path).st_mode
            within = self._is_inside(path, stat.S_ISLNK(mode))
            exists = os.path.isfile(path) if stat.S_ISLNK(mode) else stat.S_ISREG(mode)
        except (OSError, RuntimeError):
            within, exists = True, False
        inside = f"a file inside {self.folder}"
        if not exists:
            raise DataError(
                f"{self._where(line)} names {name!r}, which is missing", inside, "add the file or remove the line"
            )
        if not within:
            given = f"{self._where(line)} names {name!r}, which leads outside the data folder"
            raise DataError(given, inside, "copy the file in")
        return path

    def _where(self, line: int) -> str:
        return f"{self.folder / self.list_name} line {line}"

    def _is_inside(self, path: str, is_link: bool) -> bool:
        if is_link:
            return Path(path).resolve().is_relative_to(self._root)
        parent = os.path.dirname(path)
        if parent not in self._inside:
            self._inside[parent] = Path(parent).resolve().is_relative_to(self._root)
        return self._inside[parent]


def read_lines(path: Path) -> list[str]:
    """The lines of a list with their ends, as UTF-8 with or without a byte order mark.

    Lines end as in files, not wherever Unicode sees a line: a name may hold such characters.

    Raises:
        DataError: The file cannot be read, or is not UTF-8 text.
    """
    try:
        return list(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=None))
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text", "a plain text list", "save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", "a readable list", "check it") from None
