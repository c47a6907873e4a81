"""The walk through a tar: equal to Python's own on good ones, one clear refusal on all others."""

import gzip
import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttctune.errors import DataError, TtcError
from ttctune.images import open_source
from ttctune.images.sources.tar_members import LARGEST_MEMBER, Tar

from .shards import sample, write_tar

LONG = "a/" * 60 + "x" * 120 + ".png"
MEMBERS = [
    ("0.png", b"one"),
    ("./folder/1.png", b"x" * 513),
    ("2.cls", b""),
    (LONG, b"long"),
    ("grün.png", b"\0" * 512),
]


def members_of(path):
    with Tar(path) as tar:
        return [(member.name, tar.content(member)) for member in tar.members()]


def check_refused(path, match):
    with pytest.raises(DataError, match=match) as caught:
        members_of(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_contents_are_those_that_were_written(tmp_path, form):
    """In every format, with names too long for a header and names that are not ASCII."""
    given = [row for row in MEMBERS if row[0] != LONG] if form == tarfile.USTAR_FORMAT else MEMBERS
    path = write_tar(tmp_path / "a.tar", given, format=form)
    assert [(name.removeprefix("./"), content) for name, content in given] == members_of(path)


def test_extra_properties_are_read_past_and_sizes_among_them_count(tmp_path):
    """A size in the extended header replaces the one in the header; comments and global headers change nothing."""
    settings = {"format": tarfile.PAX_FORMAT, "pax_headers": {"comment": "for all"}}
    with tarfile.open(tmp_path / "a.tar", "w", **settings) as tar:
        header = tarfile.TarInfo("0.png")
        header.pax_headers = {"comment": "a b=c\n", "size": "3"}
        header.size = 3
        tar.addfile(header, io.BytesIO(b"one"))
    assert [("0.png", b"one")] == members_of(tmp_path / "a.tar")


def odd(path, kind, name="odd", **properties):
    """A tar with one member of a kind, after a good one."""
    with tarfile.open(path, "w") as tar:
        good = tarfile.TarInfo("0.png")
        good.size = 3
        tar.addfile(good, io.BytesIO(b"one"))
        header = tarfile.TarInfo(name)
        header.type = kind
        for key, value in properties.items():
            setattr(header, key, value)
        tar.addfile(header)
    return path


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "unknown type"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, kind, what):
    """Links and devices lead out of the shard."""
    check_refused(odd(tmp_path / "a.tar", kind, linkname="/etc/passwd"), f"holds .*{what}.*'odd'")


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    """Nothing is unpacked, but such a shard was not made to be read."""
    check_refused(write_tar(tmp_path / "a.tar", [(name, b"")]), "without '..'")


@pytest.mark.parametrize("size", [LARGEST_MEMBER + 1, 1 << 40])
def test_absurd_sizes_are_refused(tmp_path, size):
    """Before anything of that size is read."""
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("0.png")
    header.size = size
    path.write_bytes(header.tobuf() + bytes(1024))
    check_refused(path, f"has a file of {size} bytes")


def test_negative_sizes_and_endless_extra_headers_are_refused(tmp_path):
    """Neither goes back in the file nor reads it all."""
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("0.png")
    header.size = -512
    path.write_bytes(header.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024))
    check_refused(path, "has a file of -512 bytes")
    header.size, header.type = 1 << 20, tarfile.XHDTYPE
    path.write_bytes(header.tobuf() + bytes(1 << 21))
    check_refused(path, "an extended header of 1048576 bytes")


@pytest.mark.parametrize("cut", [1, 300, 512, 515, 1024, 1536, 2047, 2048, 2560])
def test_a_truncated_shard_is_refused_by_name(tmp_path, cut):
    """Wherever it was cut, between members too; an end mark of one block is enough."""
    path = write_tar(tmp_path / "a.tar", [("0.png", b"one"), ("1.png", b"x" * 600)])
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    check_refused(path, "is cut short")
    path.write_bytes(whole[: 5 * 512 + 512])
    assert 2 == len(members_of(path))


def test_empty_files_rubbish_and_compressed_files_are_refused(tmp_path):
    """Each is called what it is."""
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    whole = path.read_bytes()
    for content, match in (
        (b"", "is empty"),
        (b"rubbish" * 1000, "is no tar"),
        (gzip.compress(whole), "is compressed"),
        (whole[:512] + b"?" + whole[513:1024] + b"?" * 512 + whole[1536:], "damaged header at byte 1024"),
        (whole + whole, "has more behind its end mark"),
    ):
        path.write_bytes(content)
        check_refused(path, match)
    check_refused(tmp_path / "gone.tar", "cannot be read")


@pytest.mark.parametrize(
    "records", [b"x", b"0 path=a\n", b"999 path=a\n", b"8 path=a\n", b"10 size=-1\n", b"11 path=ab"]
)
def test_damaged_extended_headers_are_refused(tmp_path, records):
    """Records of a wrong length, without an end, or with a size that is none."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    file = tarfile.TarInfo("0.png")
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf() + records.ljust(512, b"\0") + file.tobuf() + bytes(1024))
    check_refused(path, "damaged extended header")


def _reads_or_refuses(path, content):
    path.write_bytes(content)
    try:
        open_source(path, val_fraction=0)
    except TtcError as error:
        assert "\n" not in str(error)


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(content=st.binary(max_size=2048))
def test_random_bytes_are_refused_or_read_and_nothing_else(tmp_path, content):
    """No other error than ours, and an end."""
    _reads_or_refuses(tmp_path / "a.tar", content)


@FUZZ
@given(data=st.data())
def test_mutated_shards_are_refused_or_read_and_nothing_else(tmp_path, data):
    """Bytes of headers and labels changed, the checksum made right again or not, the end cut off or not."""
    path = write_tar(tmp_path / "a.tar", [*sample("0", 0, "json"), *sample(LONG[:-4], 1)], format=tarfile.PAX_FORMAT)
    content = bytearray(path.read_bytes())
    heads = [i for i in range(0, len(content), 512) if content[i + 257 : i + 262] == b"ustar"]
    for _ in range(data.draw(st.integers(1, 4))):
        head = data.draw(st.sampled_from(heads))
        content[head + data.draw(st.integers(0, 1023))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            block = content[head : head + 148] + b" " * 8 + content[head + 156 : head + 512]
            content[head + 148 : head + 156] = b"%06o\0 " % sum(block)
    _reads_or_refuses(path, bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 1536]))]))
