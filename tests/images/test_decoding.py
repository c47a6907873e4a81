"""Decoding: every kind of picture, timm's very pixels, and one clear line for rubbish."""

import errno
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

import ttctune.torchvision_operators  # noqa: F401

# isort: split
from timm.data import create_transform

from ttctune.errors import DataError, FolderError
from ttctune.images import decode, decode_whole
from ttctune.images.resizing import MAX_PIXELS

from .pictures import describe, draw


def _timm(image: Image.Image, description, interpolation=None) -> torch.Tensor:
    transform = create_transform(
        (3, description.height, description.width),
        interpolation=interpolation or description.interpolation,
        crop_pct=description.crop_share,
        crop_mode=description.crop_mode,
        mean=description.mean,
        std=description.std,
    )
    mean, std = torch.tensor(description.mean), torch.tensor(description.std)
    return ((transform(image) * std[:, None, None] + mean[:, None, None]) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_share", [1.0, 0.95, 0.875, 0.9, 0.5])
@pytest.mark.parametrize("target", [(32, 32), (33, 33), (32, 48), (47, 31)])
def test_crop_gives_the_pixels_of_timms_evaluation_transform(crop_mode, crop_share, target):
    """Every crop mode, share and input shape agrees with timm pixel for pixel, on pictures of odd sizes."""
    for number, size in enumerate([(40, 32), (31, 67), (101, 33), (32, 32), (7, 5), (500, 41), (33, 49)]):
        filters = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
        description = describe(
            *target,
            resize="crop",
            crop_mode=crop_mode,
            crop_share=crop_share,
            interpolation=filters[number % len(filters)],
        )
        image = draw(number, size)
        torch.testing.assert_close(decode(image, description), _timm(image, description), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(40, 32), (16, 24), (5, 90)])
def test_squash_resizes_the_whole_picture(size):
    """The picture is resized to height x width with the named filter, whatever its shape."""
    image = draw(1, size)
    expected = np.asarray(image.resize((20, 24), Image.Resampling.BILINEAR))
    result = decode(image, describe(24, 20, interpolation="bilinear"))
    assert result.shape == (3, 24, 20) and result.dtype == torch.uint8 and result.is_contiguous()
    assert np.array_equal(expected, result.permute(1, 2, 0).numpy())


def test_random_interpolation_means_bicubic():
    """A filter that timm draws at random is bicubic here, each time."""
    image = draw(0)
    assert torch.equal(decode(image, describe()), decode(image, describe(interpolation="random")))


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
def test_every_format_is_read(tmp_path, ending):
    """A file of each accepted format gives the pixels that Pillow reads in it."""
    path = tmp_path / f"a.{ending}"
    draw(1).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(expected, decode(path, describe()).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_what_convert_makes_of_it(mode, channels):
    """Grey, alpha, palettes, CMYK and 1-bit pictures are converted as Pillow converts them."""
    image = draw(1).convert("RGB").convert(mode)
    expected = np.asarray(image.convert("L" if channels == 1 else "RGB").resize((16, 16), Image.Resampling.BICUBIC))
    result = decode(image, describe(channels=channels))
    assert np.array_equal(expected.reshape(16, 16, channels), result.permute(1, 2, 0).numpy())


def test_alpha_is_dropped_not_blended():
    """A fully transparent red picture is red."""
    result = decode(Image.new("RGBA", (8, 8), (200, 10, 20, 0)), describe())
    assert [200, 10, 20] == result[:, 0, 0].tolist()


def test_a_palette_with_transparent_entries_is_read_without_a_warning(tmp_path):
    """Palette pictures with transparency keep their colours and print nothing."""
    image = draw(1).convert("P")
    path = tmp_path / "a.png"
    image.save(path, transparency=bytes(range(200)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = decode(path, describe(32, 40))
    assert np.array_equal(np.asarray(image.convert("RGB")), result.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_whole_range(tmp_path, ending):
    """65535 is white, half of it is half grey; nothing is clipped at 255."""
    values = np.array([[0, 257, 32896, 65535]] * 4, dtype=np.uint16)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(path)
    assert [0, 1, 128, 255] == decode(path, describe(4, 4, channels=1))[0, 0].tolist()
    wide = Image.fromarray(values.astype(np.int32))
    assert [0, 1, 128, 255] == decode(wide, describe(4, 4, channels=3))[2, 1].tolist()


def test_float_grey_is_a_share_of_white_and_nothing_else():
    """Of floats beyond [0, 1] nobody knows what white is, so they are refused rather than guessed."""
    image = Image.fromarray(np.array([[0.0, 0.2, 1.0]] * 3, dtype=np.float32))
    assert [0, 51, 255] == decode(image, describe(3, 3, channels=1))[0, 0].tolist()
    with pytest.raises(DataError, match="outside 0 to 1"):
        decode(Image.fromarray(np.array([[0.0, 51.0, 255.0]] * 3, dtype=np.float32)), describe(3, 3, channels=1))


def test_float_grey_with_a_hole_is_refused():
    """A pixel that is not a number is an error, not a colour."""
    image = Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="not finite"):
        decode(image, describe())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_in_exif_is_applied(tmp_path, orientation):
    """Whatever way a camera was held, the top of the picture ends at the top."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = draw(1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    stored.save(tmp_path / "a.png", exif=exif)
    result = decode(tmp_path / "a.png", describe(32, 40))
    assert np.array_equal(np.asarray(upright), result.permute(1, 2, 0).numpy())


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    """Rubbish where the rotation should be noted is ignored, silently."""
    draw(1).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x00rubbish")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(tmp_path / "a.jpg", describe()).shape == (3, 16, 16)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, ending):
    """The second frame changes nothing."""
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    path = tmp_path / f"a.{ending}"
    first.save(path, save_all=True, append_images=[second], **({"lossless": True} if ending == "webp" else {}))
    assert [255, 0, 0] == decode(path, describe())[:, 4, 4].tolist()


def test_a_pil_image_handed_over_stays_as_it_was():
    """Decoding neither turns nor closes a person's own image."""
    image = draw(1)
    image.getexif()[0x0112] = 6
    before = image.tobytes()
    decode(image, describe())
    assert before == image.tobytes() and image.size == (40, 32) and image.getexif()[0x0112] == 6


@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("wanted", [1, 3])
def test_arrays_of_up_to_four_channels_serve_grey_and_colour_models(channels, wanted):
    """Grey, grey with alpha, RGB and RGBA arrays are converted like pictures."""
    array = np.full((6, 5) if channels is None else (6, 5, channels), 90, dtype=np.uint8)
    assert (decode(array, describe(channels=wanted)) == 90).all()


@pytest.mark.parametrize("channels", [2, 4, 7])
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_other_numbers_of_channels_come_from_arrays_and_are_resized_one_by_one(channels, resize):
    """Each channel of a many-channel array is what a grey picture of it would be."""
    array = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    result = decode(array, describe(channels=channels, resize=resize))
    grey = describe(channels=1, resize=resize)
    expected = [decode(np.ascontiguousarray(array[..., c]), grey)[0] for c in range(channels)]
    assert torch.equal(torch.stack(expected), result)


def test_a_picture_file_for_a_many_channel_model_is_refused():
    """RGB pictures do not become five channels by magic."""
    with pytest.raises(DataError, match="hand over arrays with 5 channels"):
        decode(draw(0), describe(channels=5))
    with pytest.raises(DataError, match="has 3 channels; expected 5"):
        decode(np.zeros((4, 4, 3), np.uint8), describe(channels=5))


def test_whatever_is_a_picture_can_be_decoded_alone(tmp_path):
    """Text, Path, image, arrays and tensors of either layout, uint8 or float: the same tensor."""
    draw(1).save(tmp_path / "a.png")
    last = np.asarray(draw(1))
    first = np.ascontiguousarray(last.transpose(2, 0, 1))
    expected = decode(tmp_path / "a.png", describe())
    for picture in (str(tmp_path / "a.png"), draw(1), last, first, torch.from_numpy(first), first / 255):
        assert torch.equal(expected, decode(picture, describe()))


def test_a_last_axis_as_long_as_the_model_has_channels_holds_them():
    """Three rows of two channels are not taken for colours in front."""
    assert (2, 16, 16) == decode(np.zeros((3, 5, 2), np.uint8), describe(channels=2)).shape
    assert (7, 16, 16) == decode(np.zeros((4, 4, 7), np.uint8), describe(channels=7)).shape


@pytest.mark.parametrize("picture", [3, None, np.zeros((4, 4, 3), np.int32), np.zeros(5, np.uint8), b"bytes"])
def test_what_is_no_picture_is_refused(picture):
    """Another type, dtype or number of dimensions is named."""
    with pytest.raises(DataError, match="the picture"):
        decode(picture, describe())


def _bomb(path: Path, width: int, height: int) -> Path:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("side", [13_378, 15_000, 40_000, 2_000_000])
def test_absurdly_large_pictures_are_refused_without_a_warning(tmp_path, side):
    """Above the limit the size alone decides: no pixel is decoded and nothing is printed."""
    assert side * side > MAX_PIXELS
    path = _bomb(tmp_path / "bomb.png", side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=r"bomb\.png"):
            decode(path, describe())


def test_a_sliver_that_would_fill_the_memory_when_resized_is_refused():
    """Cropping enlarges the short side of a long, thin picture; the long side has a limit."""
    image = Image.new("RGB", (60_000, 1))
    with pytest.raises(DataError, match="use resize squash"):
        decode(image, describe(224, 224, resize="crop"))
    assert decode(image, describe()).shape == (3, 16, 16)


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_truncated_files_are_refused_by_name(tmp_path, ending, share):
    """A file cut short is never loaded with the rest made up, even where another library allowed that."""
    whole = tmp_path / f"whole.{ending}"
    draw(1, (200, 160)).save(whole)
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    for allowed in (False, True):
        ImageFile.LOAD_TRUNCATED_IMAGES = allowed
        try:
            with pytest.raises(DataError, match=rf"cut\.{ending}"):
                decode(cut, describe())
            assert ImageFile.LOAD_TRUNCATED_IMAGES is allowed
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


def test_missing_files_folders_and_foreign_files_are_refused_by_name(tmp_path):
    """No file, a folder, text, and formats that are not on the list each give one line with the path."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    for name in ("missing.png", "folder.png", "text.png", "script.png"):
        with pytest.raises(DataError, match=name) as caught:
            decode(tmp_path / name, describe())
        assert "\n" not in str(caught.value)


def test_a_picture_without_pixels_is_refused():
    """Zero rows or columns are an error, as an image and as an array."""
    for picture in (Image.new("RGB", (0, 5)), np.zeros((0, 5, 3), np.uint8), np.zeros((5, 0), np.uint8)):
        with pytest.raises(DataError, match="at least one pixel"):
            decode(picture, describe())


@pytest.mark.parametrize(
    "settings_", [{"interpolation": "nicest"}, {"crop_mode": "left"}, {"resize": "fold"}, {"crop_share": 0.0}]
)
def test_a_description_that_makes_no_sense_is_refused(settings_):
    """An unknown filter, crop mode or way to resize is named, not guessed."""
    with pytest.raises(DataError, match="input description"):
        decode(draw(0), describe(**settings_))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"RIFF", b"P6 "]
    ),
    rest=st.binary(max_size=300),
    ending=st.sampled_from(["png", "jpg"]),
)
def test_random_bytes_give_a_tensor_or_a_data_error(tmp_path, start, rest, ending):
    """Nothing that Pillow raises on rubbish comes through."""
    path = tmp_path / f"rubbish.{ending}"
    path.write_bytes(start + rest)
    try:
        assert decode(path, describe()).shape == (3, 16, 16)
    except DataError as error:
        assert path.name in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), ending=st.sampled_from(["png", "jpg", "gif", "tif", "bmp", "webp"]))
def test_damaged_pictures_give_a_tensor_or_a_data_error(tmp_path, data, ending):
    """Whole files with a few bytes changed never give a traceback of Pillow's."""
    path = tmp_path / f"damaged.{ending}"
    draw(1, (24, 20)).save(path)
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(body))
    try:
        assert decode(path, describe()).shape == (3, 16, 16)
    except DataError as error:
        assert path.name in str(error)


@pytest.mark.parametrize(
    ("image", "mode", "value"),
    [
        (Image.new("RGB", (5, 3), (1, 2, 3)), "RGB", (1, 2, 3)),
        (Image.new("RGBA", (5, 3), (1, 2, 3, 0)), "RGB", (1, 2, 3)),
        (Image.new("1", (5, 3), 1), "L", 255),
        (Image.new("I;16", (5, 3), 65535), "L", 255),
        (np.full((3, 5), 7, np.uint8), "L", 7),
    ],
)
def test_a_whole_picture_keeps_its_size_and_becomes_grey_or_rgb(image, mode, value):
    """As decode sees it, but not resized."""
    whole = decode_whole(image, "it")
    assert (mode, (5, 3), value) == (whole.mode, whole.size, whole.getpixel((0, 0)))


def test_a_whole_picture_that_cannot_be_read_is_named(tmp_path):
    """Missing and damaged files are one error."""
    (tmp_path / "x.png").write_bytes(b"rubbish")
    for name, said in (("x.png", "cannot be read"), ("y.png", "does not exist")):
        with pytest.raises(DataError, match=said):
            decode_whole(tmp_path / name, name)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), MemoryError),
        (OSError(errno.EMFILE, "Too many open files"), FolderError),
        (OSError(errno.EIO, "Input/output error"), FolderError),
        (OSError("image file is truncated"), DataError),
        (PermissionError(errno.EACCES, "Permission denied"), DataError),
    ],
    ids=str,
)
def test_a_failing_machine_is_not_taken_for_a_bad_picture(tmp_path, monkeypatch, error, expected):
    """`skip_bad` leaves out pictures that are bad, not good ones that cannot be read now."""
    draw(0).save(tmp_path / "a.png")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(expected) as caught:
        decode(tmp_path / "a.png", describe())
    assert caught.type is expected
