"""How the images of a copy are encoded, and what that says about losses."""

from collections.abc import Collection
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from ttctune.images.decoding import strict_pillow

#: A JPEG that was written at Pillow's default quality, as the script behind most copies of VTAB-1k writes them all.
DEFAULT_JPEG = "JPEG of default quality"
_LOSSY = ("JPEG", "MPO", "WEBP")


def encoding_of(file: str | Path) -> str | None:
    """The format of an image file, such as "PNG", "JPEG" or `DEFAULT_JPEG`; None where it is no image."""
    try:
        with strict_pillow(), Image.open(file) as image:
            tables = getattr(image, "quantization", None)
            return DEFAULT_JPEG if tables and tables in _default_tables() else image.format
    except Exception:  # whatever Pillow raises on rubbish; decoding it says what
        return None


def describe_copy(encodings: Collection[str], original: str) -> tuple[str, bool]:
    """What the encodings say about a copy of data that the source stores as `original`: arrays, PNG or JPEG.

    Returns:
        A few words, and whether the copy is lossy. Lossless files that were made from lossy ones look lossless.
    """
    lossy = sorted(name for name in encodings if name == DEFAULT_JPEG or name in _LOSSY)
    if not lossy:
        return f"lossless ({', '.join(sorted(encodings))})", False
    if original == "JPEG" and lossy == ["JPEG"]:
        return "JPEG, as the source", False
    return f"lossy ({', '.join(lossy)})", True


@cache
def _default_tables() -> tuple[dict[int, list[int]], ...]:
    """Quantisation tables of Pillow's default quality, of colour and of grey pictures."""
    found = []
    for mode in ("RGB", "L"):
        file = BytesIO()
        Image.new(mode, (8, 8)).save(file, "JPEG")
        with Image.open(file) as image:
            found.append(image.quantization)  # type: ignore[attr-defined]
    return tuple(found)
