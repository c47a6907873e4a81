"""From whatever a person calls their data to parts of pictures and labels; no image is decoded here."""

from ttctune.images.sources.opening import open_source, present_parts
from ttctune.images.sources.source import PARTS, PartSource, Source

__all__ = ["PARTS", "PartSource", "Source", "open_source", "present_parts"]
