"""The folder on disk: the same outputs again, or one clear refusal."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save, save_file
from tests.models import attached, backbone_of
from tests.run_helpers import arrays, save_model, sha, short, vit, write_record

import ttctune
import ttctune.torchvision_operators
from ttctune.adapter_folder import read_importance, read_record, to_disk
from ttctune.cli.main import main
from ttctune.errors import AdapterError, FolderError, WeightsError
from ttctune.method.attachment import attach


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A local model, an adapted one, and its folder."""
    folder = tmp_path_factory.mktemp("adapter")
    name = save_model(folder / "model")
    adapted = ttctune.adapt(name, arrays(), short(), quiet=True)
    adapted.save(folder / "saved")
    return name, adapted, folder / "saved"


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the folder, to be damaged."""
    import shutil

    return shutil.copytree(made[2], tmp_path / "copy")


def change(folder, **values):
    """Change keys of adapter.json as one would who knows the digest; None removes one."""
    record = json.loads((folder / "adapter.json").read_text())
    for key, value in values.items():
        record[key] = value
        if value is None:
            del record[key]
    write_record(folder, record)


def change_digest(folder, file):
    """Make the record agree with another file of the folder."""
    digests = json.loads((folder / "adapter.json").read_text())["sha256"]
    change(folder, sha256=digests | {file: sha(folder / file)})


def change_tensors(folder, edit):
    """Change the tensors and make the record agree with their file."""
    tensors = load_file(folder / "adapter.safetensors")
    edit(tensors)
    save_file(tensors, folder / "adapter.safetensors")
    change_digest(folder, "adapter.safetensors")


def check_refused(folder, match=None, error=AdapterError):
    """Load must refuse in one line; and `inspect` must not crash on the same folder."""
    with pytest.raises(error, match=match) as caught:
        ttctune.load(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 900
    return line


def test_a_loaded_adapter_gives_the_same_outputs(made):
    _, adapted, folder = made
    pictures = list(arrays(4, seed=5)[0])
    again = ttctune.load(folder)
    assert np.array_equal(again.predict(pictures), adapted.predict(pictures))
    assert (again.classes, again.recipe, again.input) == (adapted.classes, adapted.recipe, adapted.input)
    assert again.parameters == adapted.parameters and again.metrics == adapted.metrics
    assert again.history == list(adapted.history)
    assert all(torch.equal(again.importance[k], v) for k, v in adapted.importance.items())
    assert not again.model.training


@pytest.mark.slow
def test_a_new_process_gives_the_same_outputs(made, tmp_path):
    _, adapted, folder = made
    pictures = arrays(4, seed=5)[0]
    np.save(tmp_path / "in.npy", pictures)
    program = (
        "import sys, numpy, torch; torch.set_num_threads(1); import ttctune; "
        "numpy.save(sys.argv[3], ttctune.load(sys.argv[1]).predict(list(numpy.load(sys.argv[2]))))"
    )
    files = [str(folder), str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run([sys.executable, "-c", program, *files], check=True, timeout=120)
    assert np.array_equal(np.load(tmp_path / "out.npy"), adapted.predict(list(pictures)))


def test_saving_twice_gives_identical_bytes(made, tmp_path):
    _, adapted, folder = made
    adapted.save(tmp_path / "one")
    ttctune.load(folder).save(tmp_path / "two")
    for file in ("adapter.json", "adapter.safetensors", "importance.safetensors", "history.jsonl", "README.md"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_the_folder_holds_the_designed_files_and_nothing_else(made):
    files = {p.name for p in made[2].iterdir()}
    scores = {"importance.safetensors", "history.jsonl"}
    assert files == {"adapter.json", "adapter.safetensors", "recipe.toml", "README.md"} | scores
    names = load_file(made[2] / "adapter.safetensors").keys()
    assert {"sites.0.attn.channels", "sites.0.attn.map", "sites.0.attn.bias", "head.weight", "norms.norm.bias"} <= names
    record = json.loads((made[2] / "adapter.json").read_text())
    assert record["sha256"]["adapter.safetensors"] == sha(made[2] / "adapter.safetensors")
    rows = [json.loads(line) for line in (made[2] / "history.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["epoch"]) for row in rows] == [("align", 1), ("tune", 1)]


def test_an_existing_adapter_is_only_replaced_when_asked(made, tmp_path):
    adapted = made[1]
    adapted.save(tmp_path / "x")
    with pytest.raises(FolderError, match="taken"):
        adapted.save(tmp_path / "x")
    adapted.save(tmp_path / "x", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_float16_halves_the_file_and_stays_close(made, tmp_path):
    name, adapted, _ = made
    half = ttctune.adapt(name, arrays(), short(adapter_dtype="float16"), quiet=True)
    half.save(tmp_path / "half")
    tensors = load_file(tmp_path / "half" / "adapter.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float16, torch.int16}
    pictures = list(arrays(4, seed=5)[0])
    again = ttctune.load(tmp_path / "half")
    assert np.abs(again.predict(pictures) - adapted.predict(pictures)).max() < 5e-3
    assert all(p.dtype == torch.float32 for p in again.adapter.parameters())


def test_channels_are_small_integers_on_disk_and_int64_in_memory():
    stored = to_disk({"a": torch.tensor([1, 32767]), "b": torch.tensor([1, 32768]), "c": torch.ones(2)}, "float32")
    assert [t.dtype for t in stored.values()] == [torch.int16, torch.int32, torch.float32]


def test_an_adapter_of_vit_base_is_at_most_0_61_megabytes():
    with torch.device("meta"):
        shell = timm.create_model("vit_base_patch16_224", num_classes=0)
    model = shell.to_empty(device="cpu")
    backbone = backbone_of(model)
    attachment = attach(backbone, 2)
    sites = backbone.sites(("attn",))
    attachment.tune(sites, {site.name: torch.arange(0, 768, 8) for site in sites}, "map")
    stored = to_disk(attachment.adapter.state_dict(), "float32")
    stored = {name: tensor for name, tensor in stored.items() if not name.startswith("head.")}
    assert stored["sites.11.attn.map"].shape == (96, 96) and len(sites) == 12
    assert sum(t.numel() * t.element_size() for t in stored.values()) <= 0.61e6
    assert len(save(stored)) <= 0.62e6


def test_another_backbone_is_refused(made, copy, tmp_path):
    other = save_model(tmp_path / "other", vit(seed=1))
    with pytest.raises(AdapterError, match="digest"):
        ttctune.load(copy, model=other)
    with pytest.raises(AdapterError, match="digest"):
        ttctune.load(copy, model=vit(seed=1))
    change(
        copy, backbone={"name": other, "digest": json.loads((copy / "adapter.json").read_text())["backbone"]["digest"]}
    )
    check_refused(copy, "digest")


def test_the_right_backbone_from_elsewhere_is_taken(made, copy):
    assert ttctune.load(copy, model=vit()).classes == made[1].classes


def test_weights_that_do_not_fit_are_refused(copy, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="lacks"):
        ttctune.load(copy, weights=tmp_path / "w.safetensors")


def test_a_newer_format_is_refused_with_the_advice_to_upgrade(copy):
    change(copy, ttctune_format=2)
    assert "install a newer ttctune" in check_refused(copy, "format 2")


def test_a_newer_format_is_refused_even_when_all_else_differs(copy):
    (copy / "adapter.json").write_text('{"ttctune_format": 7, "brain": true}')
    check_refused(copy, "format 7")


@pytest.mark.parametrize("cut", [0, 1, 7, 100, -1])
def test_a_truncated_tensors_file_is_refused(copy, cut):
    file = copy / "adapter.safetensors"
    content = file.read_bytes()[:cut]
    file.write_bytes(content)
    check_refused(copy, "SHA-256")
    change_digest(copy, "adapter.safetensors")
    check_refused(copy, "damaged")


@pytest.mark.parametrize("name", ["adapter.safetensors", "importance.safetensors", "history.jsonl"])
def test_one_changed_bit_is_seen(copy, name):
    file = copy / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    check_refused(copy, "SHA-256")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"2"', '"7"'), ('"seed": 0', '"seed": 1'), ("0.5", "0.6"), ('"squash"', '"crop"'), ("local-dir", "lokal-dir")],
)
def test_one_changed_word_of_the_record_is_seen(copy, old, new):
    file = copy / "adapter.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    check_refused(copy, "digest differs")


def test_a_record_without_its_digest_is_refused(copy):
    record = json.loads((copy / "adapter.json").read_text())
    del record["digest"]
    (copy / "adapter.json").write_text(json.dumps(record))
    check_refused(copy, "digest")


def test_a_record_laid_out_anew_is_the_same_record(made, copy):
    record = json.loads((copy / "adapter.json").read_text())
    (copy / "adapter.json").write_text(json.dumps(dict(reversed(record.items())), indent=7))
    assert ttctune.load(copy).classes == made[1].classes


RUBBISH = {
    "empty": b"",
    "binary": bytes(range(256)),
    "no json": b"hello",
    "half": b'{"ttctune_format": 1,',
    "list": b"[1, 2]",
    "number": b"7",
    "null": b"null",
    "deep": b"[" * 100_000,
    "empty object": b"{}",
}


@pytest.mark.parametrize("content", RUBBISH.values(), ids=RUBBISH.keys())
def test_a_record_of_rubbish_is_refused(copy, content):
    (copy / "adapter.json").write_bytes(content)
    check_refused(copy, "damaged")


def test_a_huge_record_is_refused_unread(copy):
    with (copy / "adapter.json").open("r+b") as file:
        file.truncate(1 << 33)
    check_refused(copy, "bytes")


KEYS = [
    "ttctune_format", "backbone", "classes", "input", "recipe", "settled", "data", "parameters", "metrics", "versions",
    "sha256",
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(copy, key):
    change(copy, **{key: None})
    check_refused(copy, key)


WRONG = [
    ("ttctune_format", "one"),
    ("ttctune_format", 0),
    ("ttctune_format", -3),
    ("ttctune_format", 1.5),
    ("ttctune_format", 2.0),
    ("backbone", {"name": 3, "digest": None}),
    ("backbone", []),
    ("classes", []),
    ("classes", "abc"),
    ("classes", [1, 2, 3]),
    ("classes", ["a", "b"]),
    ("input", {}),
    ("input", {"height": "x", "width": 32, "mean": [0.5] * 3, "std": [0.5] * 3}),
    ("input", {"height": 0, "width": 32, "mean": [0.5] * 3, "std": [0.5] * 3}),
    ("input", {"height": -32, "width": 32, "mean": [0.5] * 3, "std": [0.5] * 3}),
    ("input", {"height": 10**9, "width": 10**9, "mean": [0.5] * 3, "std": [0.5] * 3}),
    ("input", {"height": 33, "width": 33, "mean": [0.5] * 3, "std": [0.5] * 3}),
    ("input", {"height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.5] * 2}),
    ("input", {"height": 32, "width": 32, "mean": [], "std": []}),
    ("recipe", []),
    ("recipe", {"channels": -4}),
    ("recipe", {"sites": ["brain"]}),
    ("recipe", {"sites": ["attn"]}),
    ("recipe", {"form": "rows"}),
    ("metrics", {"accuracy": "good"}),
    ("metrics", {"accuracy": 10**400, "balanced_accuracy": 0, "ece": 0, "images": 1}),
    ("data", {"held_out": {}}),
    ("data", {"held_out": {"digest": "0", "val_fraction": 2, "seed": 0}}),
    ("input", {"height": 32, "width": 32, "mean": [0.5], "std": [0.5]}),
    ("classes", [str(i) for i in range(100_000)]),
    ("parameters", {"channels": "many"}),
    ("parameters", {}),
    ("sha256", {}),
    ("sha256", {"adapter.safetensors": 7}),
    ("sha256", "abc"),
    ("versions", []),
    ("calibration", {"temperature": 0}),
    ("calibration", {"temperature": "warm"}),
    ("calibration", {"temperature": float("nan")}),
    ("calibration", {"thresholds": [{"target": 2, "abstain": 0.5, "coverage": 0.5, "accuracy": 0.5}]}),
    ("settled", {"warm_start": "old"}),
    ("settled", {"warm_start": {"folder": "old"}}),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{k}={str(v)[:30]}" for k, v in WRONG])
def test_a_value_of_the_wrong_kind_is_refused_and_inspect_survives(copy, capsys, key, value):
    change(copy, **{key: value})
    check_refused(copy)
    code = main(["inspect", str(copy)])
    errors = capsys.readouterr().err.splitlines()
    assert code in (0, 1) and (code == 0 or len(errors) == 1)


def test_a_folder_from_before_gates_is_read(made, tmp_path):
    ttctune.adapt(made[0], arrays(), short(gates=()), out=tmp_path / "x", quiet=True)
    record = json.loads((tmp_path / "x" / "adapter.json").read_text())
    assert record["recipe"].pop("gates") == []
    write_record(tmp_path / "x", record)
    assert ttctune.load(tmp_path / "x").recipe.gates == ()


def test_a_folder_from_before_calibration_is_read_and_saved_again(made, copy, tmp_path):
    record = json.loads((copy / "adapter.json").read_text())
    del record["calibration"], record["metrics"]["ece_raw"]
    write_record(copy, record)
    again = ttctune.load(copy)
    assert again.calibration.temperature == 1
    again.save(tmp_path / "again")
    assert main(["inspect", str(tmp_path / "again")]) == 0


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/adapter.safetensors", "x.safetensors"])
def test_a_record_that_names_another_file_is_refused(copy, name):
    change(copy, sha256={name: "0" * 64})
    check_refused(copy, "names")


@pytest.mark.parametrize("file", ["adapter.json", "adapter.safetensors", "importance.safetensors", "history.jsonl"])
def test_a_link_that_leads_out_of_the_folder_is_refused(copy, tmp_path, file):
    os.replace(copy / file, tmp_path / file)
    (copy / file).symlink_to(tmp_path / file)
    check_refused(copy, "out of its folder")


def test_a_link_to_the_whole_folder_is_fine(made, tmp_path):
    (tmp_path / "link").symlink_to(made[2])
    assert ttctune.load(tmp_path / "link").classes == made[1].classes


EDITS = {
    "out of range": lambda t: t["sites.0.attn.channels"][-1:].fill_(32),
    "far out of range": lambda t: t["sites.0.attn.channels"][-1:].fill_(30000),
    "negative": lambda t: t["sites.0.attn.channels"][:1].fill_(-1),
    "unsorted": lambda t: t.update({"sites.0.attn.channels": t["sites.0.attn.channels"].flip(0).contiguous()}),
    "duplicated": lambda t: t["sites.0.attn.channels"][1:2].copy_(t["sites.0.attn.channels"][:1]),
    "no channels": lambda t: t.update({"sites.0.attn.channels": torch.zeros(0, dtype=torch.int16)}),
    "channels as numbers with a comma": lambda t: t.update(
        {"sites.0.attn.channels": t["sites.0.attn.channels"].float() + 0.5}
    ),
    "channels in two dimensions": lambda t: t.update(
        {"sites.0.attn.channels": t["sites.0.attn.channels"].reshape(2, -1)}
    ),
    "channels as a scalar": lambda t: t.update({"sites.0.attn.channels": torch.tensor(3)}),
    "map missing": lambda t: t.pop("sites.0.attn.map"),
    "channels missing": lambda t: t.pop("sites.0.attn.channels"),
    "norm missing": lambda t: t.pop("norms.norm.weight"),
    "head missing": lambda t: [t.pop("head.weight"), t.pop("head.bias")],
    "all missing": lambda t: t.clear(),
    "extra": lambda t: t.update({"sites.0.attn.brain": torch.zeros(1)}),
    "extra norm": lambda t: t.update({"norms.brain.weight": torch.zeros(1)}),
    "block that is not there": lambda t: t.update(
        {f"sites.9.attn.{part}": t[f"sites.0.attn.{part}"].clone() for part in ("channels", "map", "bias")}
    ),
    "site that is no number": lambda t: t.update({"sites.x.attn.channels": torch.arange(3)}),
    "wrong shape of a map": lambda t: t.update({"sites.0.attn.map": torch.zeros(3, 3)}),
    "wrong shape of the head": lambda t: t.update({"head.weight": torch.zeros(4, 32)}),
    "wrong shape of a norm": lambda t: t.update({"norms.norm.weight": torch.zeros(31)}),
    "whole numbers for a map": lambda t: t.update({"sites.0.attn.map": torch.zeros(8, 8, dtype=torch.int64)}),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_tensors_that_do_not_fit_are_refused_even_with_a_fresh_digest(copy, edit, capsys, tmp_path):
    change_tensors(copy, edit)
    check_refused(copy)
    code = main(["inspect", str(copy), "--picture", str(tmp_path / "map.png")])
    assert code in (0, 1) and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("damage", ["cut", "rubbish", "wrong name", "two dimensions"])
def test_damaged_scores_are_refused(copy, damage):
    file = copy / "importance.safetensors"
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-3])
        case "rubbish":
            file.write_bytes(b"scores")
        case "wrong name":
            save_file({"brain": torch.zeros(3)}, file)
        case "two dimensions":
            save_file({"0.attn": torch.zeros(3, 3)}, file)
    check_refused(copy, "SHA-256")
    change_digest(copy, file.name)
    check_refused(copy, r"importance.safetensors is damaged")


@pytest.mark.parametrize(
    "content", [b"{", b"[" * 100_000, b"7\n", b"\xff\xfe"], ids=["half", "deep", "number", "binary"]
)
def test_a_damaged_history_is_refused(copy, content):
    (copy / "history.jsonl").write_bytes(content)
    check_refused(copy, "SHA-256")
    change_digest(copy, "history.jsonl")
    check_refused(copy, r"history.jsonl is damaged")


def test_scores_and_history_are_not_needed_to_load(made, copy):
    (copy / "importance.safetensors").unlink()
    (copy / "history.jsonl").unlink()
    assert read_importance(copy, read_record(copy)) == {}
    pictures = list(arrays(2, seed=5)[0])
    assert np.array_equal(ttctune.load(copy).predict(pictures), made[1].predict(pictures))
    assert main(["inspect", str(copy), "--quiet", "--picture", str(copy.parent / "map.svg")]) == 0


def test_unknown_keys_of_the_same_format_are_ignored(made, copy):
    record = json.loads((copy / "adapter.json").read_text())
    for part in (record, record["backbone"], record["input"], record["recipe"], record["settled"], record["metrics"]):
        part["something_new"] = {"a": [1, 2]}
    write_record(copy, record)
    pictures = list(arrays(2, seed=5)[0])
    assert np.array_equal(ttctune.load(copy).predict(pictures), made[1].predict(pictures))


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "no tensors"])
def test_what_is_no_adapter_folder_is_refused(copy, tmp_path, kind):
    match kind:
        case "absent":
            check_refused(tmp_path / "nothing", "ttctune fit")
        case "file":
            (tmp_path / "file").write_text("x")
            check_refused(tmp_path / "file", "ttctune fit")
        case "empty":
            (tmp_path / "empty").mkdir()
            check_refused(tmp_path / "empty", "adapter.json")
        case "no tensors":
            (copy / "adapter.safetensors").unlink()
            check_refused(copy, "adapter.safetensors")


def test_a_module_of_ones_own_must_be_handed_over_again(tmp_path):
    model = vit()
    adapted = ttctune.adapt(model, arrays(), short(), quiet=True)
    adapted.save(tmp_path / "x")
    check_refused(tmp_path / "x", "model=")
    pictures = list(arrays(2, seed=5)[0])
    assert np.array_equal(ttctune.load(tmp_path / "x", model=model).predict(pictures), adapted.predict(pictures))


def test_rows_and_the_stream_survive_the_trip(tmp_path):
    pictures = list(arrays(2, seed=5)[0])
    for settings in ({"form": "rows"}, {"sites": "stream"}, {"sites": "qkv,fc1"}, {"budget": 60}):
        adapted = ttctune.adapt(vit(), arrays(), short(**settings), quiet=True)
        adapted.save(tmp_path / "x", overwrite=True)
        again = ttctune.load(tmp_path / "x", model=vit())
        assert np.array_equal(again.predict(pictures), adapted.predict(pictures)), settings


def test_names_in_the_file_are_those_of_the_view(made):
    _, adapted, folder = made
    stored = load_file(folder / "adapter.safetensors")
    assert stored.keys() == adapted.adapter.state_dict().keys()
    named = dict(adapted.adapter.named_parameters())
    assert named.keys() == {name for name in stored if not name.endswith(".channels")}
    assert all(torch.equal(stored[name], p) for name, p in named.items())
    assert sum(adapted.parameters.values()) == sum(p.numel() for p in named.values())


def test_two_heads_are_both_in_the_file():
    names = attached("deit_distilled").adapter.state_dict().keys()
    assert {"head.weight", "head_dist.weight"} <= set(names)
