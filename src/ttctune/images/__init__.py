"""Files to uint8 tensors: finding images and labels, decoding, keeping or streaming, batching, augmenting."""

from ttctune.images.augmentation import Augmentation
from ttctune.images.batches import ImageSet, LabelledImages, epoch_order
from ttctune.images.cache import decode_all
from ttctune.images.decoding import decode, decode_whole
from ttctune.images.opening import ImageData, open_evaluation_images, open_images
from ttctune.images.pictures import Chosen, FileSlice, Picture, as_pictures, picture_bytes, picture_name
from ttctune.images.sources import PartSource, Source, open_source, present_parts
from ttctune.images.sources.image_files import pictures_in
from ttctune.images.sources.opening import holds_data, pictures_with_classes

__all__ = [
    "Augmentation",
    "Chosen",
    "FileSlice",
    "ImageData",
    "ImageSet",
    "LabelledImages",
    "PartSource",
    "Picture",
    "Source",
    "as_pictures",
    "decode",
    "decode_all",
    "decode_whole",
    "epoch_order",
    "holds_data",
    "open_evaluation_images",
    "open_images",
    "open_source",
    "picture_bytes",
    "picture_name",
    "pictures_in",
    "pictures_with_classes",
    "present_parts",
]
