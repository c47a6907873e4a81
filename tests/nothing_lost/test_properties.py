"""Whatever lies in a folder: read, or refused in one line; no crash, no hang, no memory, no write elsewhere.

A few examples of each by default; `pytest tests/nothing_lost --hypothesis-profile=thorough` draws thousands.
"""

import io
import json
import os
import resource
import shutil
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.images.pictures import describe, draw, write_image_tree
from tests.run_helpers import arrays, save_model, short, write_record

import ttctune
from ttctune.adapter_folder import read_record
from ttctune.cli import printing
from ttctune.errors import TtcError
from ttctune.images import decode, open_images, open_source
from ttctune.output_folder import state_of

#: What reading a folder may take beyond what the process has.
MEMORY = 1 << 30
FILES = ("adapter.json", "adapter.safetensors", "importance.safetensors", "history.jsonl")

drawn = settings(suppress_health_check=list(HealthCheck), max_examples=settings.default.max_examples // 6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400) | st.just("../x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw, whole):
    """Bytes with a few bits flipped, bytes put in or taken out, or the end cut off; or any bytes at all."""
    content = bytearray(draw(st.sampled_from(whole) if isinstance(whole, list) else st.just(whole)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["flip", "insert", "remove", "cut", "all"])):
            case "flip" if place < len(content):
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                content[place:place] = draw(st.binary(max_size=12))
            case "remove":
                del content[place : place + draw(st.integers(1, 40))]
            case "cut":
                del content[place:]
            case "all":
                content[:] = draw(st.binary(max_size=200))
    return bytes(content)


@st.composite
def changed(draw, whole):
    """A JSON value with one part, at any depth, replaced or removed."""
    result = json.loads(json.dumps(whole))
    holder, key = {"": result}, ""
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 4)):
        holder = holder[key]
        key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
    if draw(st.booleans()) or holder is result or isinstance(holder, list) or key == "":
        holder[key] = draw(values)
    else:
        del holder[key]
    return holder[""] if key == "" and "" in holder and holder is not result else result


@contextmanager
def held_to_its_place(root):
    """Fails where the block takes more memory than it may, or changes anything below `root`."""
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    except TtcError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 2000
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of an adapter, and its backbone."""
    root = tmp_path_factory.mktemp("saved")
    backbone = ttctune.open_backbone(save_model(root / "model"))
    ttctune.adapt(backbone.model, arrays(), short(), quiet=True).save(root / "whole")
    return root / "whole", backbone.model


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(saved[0], tmp_path / "x" / "adapter"), saved[1]


def restore(saved, folder):
    shutil.rmtree(folder)
    return shutil.copytree(saved[0], folder)


def use(folder, model):
    """All that reads an adapter's folder."""
    state_of(folder)
    with held_to_its_place(folder.parent):
        printing.record(read_record(folder), {}, {})
    with held_to_its_place(folder.parent):
        adapted = ttctune.load(folder, model)
        adapted.predict([Image.new("RGB", (9, 7))])
        adapted.record()
    with held_to_its_place(folder.parent):
        ttctune.load(folder, model).evaluate(arrays(2))


@drawn
@given(data=st.data())
def test_an_adapter_with_a_damaged_file_is_read_or_refused(saved, folder, data):
    place, model = folder
    restore(saved, place)
    name = data.draw(st.sampled_from(FILES))
    (place / name).write_bytes(data.draw(damaged((saved[0] / name).read_bytes())))
    if name != "adapter.json" and data.draw(st.booleans()):
        write_record(place, json.loads((place / "adapter.json").read_text()), [name])
    use(place, model)


@drawn
@given(data=st.data())
def test_an_adapter_with_a_changed_record_is_read_or_refused(saved, folder, data):
    place, model = folder
    restore(saved, place)
    record = data.draw(changed(json.loads((saved[0] / "adapter.json").read_text())))
    if isinstance(record, dict):
        write_record(place, record)
    else:
        (place / "adapter.json").write_text(json.dumps(record))
    use(place, model)


@drawn
@given(data=st.data())
def test_tensors_with_a_changed_header_are_read_or_refused(saved, folder, data):
    place, model = folder
    restore(saved, place)
    file = place / data.draw(st.sampled_from(["adapter.safetensors", "importance.safetensors"]))
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = data.draw(changed(json.loads(content[8 : 8 + length])))
    text = json.dumps(header).encode()
    claimed = data.draw(st.sampled_from([len(text), length, 2**63, 2**64 - 1, 100_000_000, 0]))
    file.write_bytes(struct.pack("<Q", claimed) + text + content[8 + length :])
    write_record(place, json.loads((place / "adapter.json").read_text()), [file.name])
    use(place, model)


names = st.sampled_from(
    ["a/0.png", "b/1.png", "../out.png", "/etc/passwd", "a/../b/1.png", "link.png", "folder", "", ".", "a\0b", "C:\\x",
     "a" * 300, "\ud7ff.png", "~/x.png", "a//0.png"]
)  # fmt: skip
numbers = st.sampled_from(["0", "1", "2", "-1", "999999999", "9" * 30, "0;1", "x", "", "1.5", "\u0663", " 1 "])
index_lines = st.tuples(
    names, st.sampled_from(["train", "val", "test", "x", ""]), numbers, st.sampled_from(["a", "b", "", "c"])
).map(",".join) | st.text(max_size=20)
vtab_lines = st.tuples(names, numbers).map(" ".join) | st.text(max_size=20)


@pytest.fixture
def pictures(tmp_path):
    """A data folder beside a picture that is not part of it."""
    folder = write_image_tree(tmp_path / "root" / "data", ("a", "b"), 2, size=(8, 8))
    draw(0).save(tmp_path / "root" / "out.png")
    (folder / "link.png").symlink_to("../out.png")
    (folder / "loop").symlink_to(".")
    for label, name in enumerate("ab"):
        (folder / name / f"{label}.png").write_bytes((folder / name / "000.png").read_bytes())
    return folder


def list_pictures(folder):
    with held_to_its_place(folder.parent):
        for part in open_source(folder).parts.values():
            for picture in part.pictures:
                assert Path(os.path.realpath(picture)).is_relative_to(folder), picture


@drawn
@given(lines=st.lists(index_lines, max_size=6), raw=st.none() | st.binary(max_size=60))
def test_an_index_is_read_or_refused_and_never_leads_out(pictures, lines, raw):
    text = "\n".join(["file,split,label,class", *lines]).encode("utf-8", "surrogatepass")
    (pictures / "index.csv").write_bytes(text if raw is None else text + b"\n" + raw)
    list_pictures(pictures)


@drawn
@given(data=st.data())
def test_vtabs_lists_are_read_or_refused_and_never_lead_out(pictures, data):
    for name in ("train800.txt", "val200.txt", "test.txt"):
        lines = data.draw(st.lists(vtab_lines, max_size=4))
        (pictures / name).write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    list_pictures(pictures)


odd_names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12)


@drawn
@given(tree=st.lists(st.tuples(odd_names, odd_names, st.booleans()), max_size=5))
def test_a_tree_of_odd_names_is_read_or_refused(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("odd") / "data"
    folder.mkdir()
    for outer, inner, is_picture in tree:
        if {outer, inner} & {".", ".."} or (folder / outer).is_file() or (folder / outer / f"{inner}.png").exists():
            continue
        (folder / outer).mkdir(exist_ok=True)
        draw(0, (8, 8)).save(folder / outer / f"{inner}.png") if is_picture else (folder / outer / inner).touch()
    list_pictures(folder)
    with held_to_its_place(folder.parent):
        open_images(folder, describe(), skip_bad=True)


def encoded():
    """A small picture in every format, still and animated, grey and with a palette."""
    result = []
    for kind, mode in (
        ("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "I;16"), ("GIF", "P"), ("TIFF", "RGB"),
        ("TIFF", "F"), ("WEBP", "RGB"), ("BMP", "RGB"), ("PPM", "L"),
    ):  # fmt: skip
        stream = io.BytesIO()
        image = Image.new(mode, (24, 16)) if mode in ("I;16", "F") else draw(1, (24, 16)).convert(mode)
        image.save(stream, kind)
        result.append(stream.getvalue())
    return result


@drawn
@given(content=damaged(encoded()))
def test_a_damaged_picture_is_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "damaged" / "picture"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with held_to_its_place(file.parent):
        picture = decode(file, describe())
        assert picture.shape == (3, 16, 16)
