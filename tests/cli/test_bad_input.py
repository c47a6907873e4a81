"""Bad input: exit code 1 or 2, exactly one line on stderr, nothing left behind."""

import json
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.images.pictures import write_image_tree
from tests.run_helpers import save_model, short_flags, vit


def write_huge_png(file: Path, side: int = 60_000) -> None:
    """A few bytes that claim to be a picture of side x side pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)))


@pytest.fixture
def refused(ttctune, tmp_path):
    """Run a command that must be refused in one line, leaving its folder as it was."""

    def run(*arguments, code=1):
        done = ttctune(*arguments)
        lines = done.err.splitlines()
        assert done.code == code, done
        assert len(lines) == 1 and lines[0].startswith("ttctune: "), done.err
        assert done.out == ""
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
        return lines[0]

    return run


@pytest.fixture
def fit(refused, model, tree, tmp_path):
    """A fit that must be refused."""

    def run(*more, data=tree, model=model, code=1, **settings):
        return refused(
            "fit", "--data", data, "--model", model, "-o", tmp_path / "out", *short_flags(**settings), *more, code=code
        )

    return run


@pytest.mark.parametrize(
    ("name", "near"),
    [("deit_tiny_patch16_225", "deit_tiny_patch16_224"), ("vit_bse_patch16_224", "vit_base_patch16_224")],
)
def test_an_unknown_model_is_answered_with_near_names(fit, name, near):
    assert near in fit(model=name)


@pytest.mark.parametrize("name", ["xyzzy", "", "../x", "hf-hub:", "local-dir:", "local-dir:/nowhere", "./"])
def test_a_model_that_is_not_there_is_refused(fit, name):
    fit(model=name)


@pytest.mark.parametrize("damage", ["no weights", "cut weights", "no config", "rubbish config", "unknown architecture"])
def test_a_damaged_local_model_is_refused(fit, tmp_path, damage):
    name = save_model(tmp_path / "m")
    weights, config = tmp_path / "m" / "model.safetensors", tmp_path / "m" / "config.json"
    match damage:
        case "no weights":
            weights.unlink()
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:500])
        case "no config":
            config.unlink()
        case "rubbish config":
            config.write_text("{")
        case "unknown architecture":
            config.write_text(json.dumps(json.loads(config.read_text()) | {"architecture": "brain"}))
    assert "local-dir" in fit(model=name)


BAD_WEIGHTS = [
    "missing", "folder", "empty", "cut", "rubbish", "text", "no tensors", "pickle", "other model", "one more",
    "other shape",
]  # fmt: skip


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_cannot_be_used_are_refused_with_the_name_of_the_file(fit, tmp_path, kind):
    file = tmp_path / "weights.safetensors"
    state = vit().state_dict()
    match kind:
        case "folder":
            file.mkdir()
        case "empty":
            file.write_bytes(b"")
        case "cut":
            save_file(state, file)
            file.write_bytes(file.read_bytes()[:-100])
        case "rubbish":
            file.write_bytes(bytes(range(256)) * 10)
        case "text":
            file = tmp_path / "weights.pth"
            file.write_text("hello")
        case "no tensors":
            file = tmp_path / "weights.pth"
            torch.save({"epoch": 3}, file)
        case "pickle":
            file = tmp_path / "weights.pth"
            torch.save({"model": vit()}, file)
        case "other model":
            save_file({"conv1.weight": torch.zeros(3, 3)}, file)
        case "one more":
            save_file(state | {"blocks.2.norm1.weight": torch.zeros(32)}, file)
        case "other shape":
            save_file(state | {"norm.weight": torch.zeros(33)}, file)
    assert file.name in fit("--weights", file)


class TestData:
    """Data folders that cannot be used."""

    @pytest.mark.parametrize("kind", ["missing", "file", "empty", "only text", "no classes"])
    def test_a_folder_without_images_is_refused_by_name(self, fit, tmp_path, kind):
        folder = tmp_path / "data"
        match kind:
            case "file":
                folder.write_text("x")
            case "empty":
                folder.mkdir()
            case "only text":
                (folder / "a").mkdir(parents=True)
                (folder / "a" / "x.txt").write_text("x")
            case "no classes":
                folder.mkdir()
                Image.new("RGB", (8, 8)).save(folder / "x.png")
        assert str(folder) in fit(data=folder)

    def test_one_class_is_not_enough(self, fit, tmp_path):
        assert "one class" in fit(data=write_image_tree(tmp_path / "data", ("only",), 5))

    def test_a_class_with_one_image_is_named(self, fit, tmp_path):
        data = write_image_tree(tmp_path / "data", ("many", "lonely"), 5)
        for file in sorted((data / "lonely").iterdir())[1:]:
            file.unlink()
        assert "lonely" in fit(data=data)

    @pytest.mark.parametrize("kind", ["rubbish", "cut", "empty", "huge"])
    def test_an_image_that_cannot_be_read_is_named_or_left_out_and_counted(self, fit, ttctune, model, tmp_path, kind):
        data = write_image_tree(tmp_path / "data", 2, 5)
        file = data / "class1" / "002.png"
        match kind:
            case "rubbish":
                file.write_bytes(b"no picture")
            case "cut":
                file.write_bytes(file.read_bytes()[:200])
            case "empty":
                file.write_bytes(b"")
            case "huge":
                write_huge_png(file)
        line = fit(data=data)
        assert "class1/002.png" in line and "skip" in line
        done = ttctune("fit", "--data", data, "--model", model, "-o", tmp_path / "ok", "--skip-bad", *short_flags())
        assert done.code == 0 and "left out 1 unreadable image" in done.err and "002.png" in done.err
        assert json.loads((tmp_path / "ok" / "adapter.json").read_text())["data"]["skipped"] == 1

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            (["train/class0/000.png,train,-1,a"], "-1"),
            (["train/class0/000.png,train,99999999999,a"], "99999999999"),
            (["train/class0/000.png,train,x,a"], "x"),
            (["train/class0/missing.png,train,0,class0"], "missing.png"),
            (["../secret.png,train,0,class0"], "secret.png"),
            (["/etc/passwd,train,0,class0"], "passwd"),
            (["train/class0/000.png,train,0,a"], "class0"),
            (["train/class0/000.png,practice,0,a"], "practice"),
            (["train/class0/000.png,train,0;1,a;b"], "0;1"),
            (["train/class0/000.png"], "index.csv"),
            ([], "index.csv"),
        ],
    )
    def test_a_row_of_the_index_that_cannot_be_is_named(self, fit, tree, tmp_path, rows, said):
        data = shutil.copytree(tree, tmp_path / "data")
        good = [f"train/class{i}/00{j}.png,train,{i},class{i}" for i in range(3) for j in range(1, 4)] if rows else []
        (data / "index.csv").write_text("\n".join(["file,split,label,class", *good, *rows]) + "\n")
        Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
        assert said in fit(data=data)

    @pytest.mark.parametrize(
        "how",
        [
            "two classes in a cell",
            "a file in two classes",
        ],
    )
    def test_several_labels_an_image_are_refused_as_such(self, fit, tree, tmp_path, how):
        data = shutil.copytree(tree, tmp_path / "data")
        rows = [f"train/class{i}/00{j}.png,train,{i},class{i}" for i in range(3) for j in range(4)]
        rows.append(
            "train/class0/004.png,train,0 1,class0 class1" if how[0] == "t" else "train/class0/000.png,train,1,class1"
        )
        (data / "index.csv").write_text("\n".join(["file,split,label,class", *rows]) + "\n")
        fit(data=data)

    def test_evaluating_classes_the_model_does_not_know_is_refused(self, refused, fitted, tmp_path):
        data = write_image_tree(tmp_path / "data", ("class0", "zebra"), 3)
        assert "zebra" in refused("evaluate", fitted, "--data", data)

    def test_predicting_what_is_not_there_is_refused(self, refused, fitted, tmp_path):
        assert "nothing.jpg" in refused("predict", fitted, tmp_path / "nothing.jpg")
        (tmp_path / "empty").mkdir()
        refused("predict", fitted, tmp_path / "empty")
        (tmp_path / "bad.jpg").write_bytes(b"x")
        assert "bad.jpg" in refused("predict", fitted, tmp_path / "bad.jpg")
        write_huge_png(tmp_path / "huge.png")
        assert "huge.png" in refused("predict", fitted, tmp_path / "huge.png")


@pytest.mark.parametrize("command", ["evaluate", "predict", "inspect", "merge"])
@pytest.mark.parametrize("kind", ["missing", "file", "empty", "unfinished", "no tensors"])
def test_an_adapter_that_is_none_is_refused(refused, fitted, tree, tmp_path, command, kind):
    folder = tmp_path / "adapter"
    match kind:
        case "file":
            folder.write_text("x")
        case "empty":
            folder.mkdir()
        case "unfinished":
            (folder / "checkpoint").mkdir(parents=True)
            (folder / "checkpoint" / "run.json").write_text("{}")
        case "no tensors":
            shutil.copytree(fitted, folder)
            (folder / "adapter.safetensors").unlink()
    more = {"evaluate": ["--data", tree], "predict": [tree], "inspect": [], "merge": ["-o", tmp_path / "out"]}[command]
    line = refused(command, folder, *more)
    assert str(folder) in line and (kind != "unfinished" or "--resume" in line)


BAD_VALUES = [
    ("--channels", "0"),
    ("--channels", "33"),
    ("--channels", "-1"),
    ("--channels", "many"),
    ("--budget", "1"),
    ("--sites", "brain"),
    ("--sites", ""),
    ("--form", "square"),
    ("--importance", "tailor"),
    ("--tokens", "some"),
    ("--preset", "papers"),
    ("--align-epochs", "-1"),
    ("--tune-epochs", "1.5"),
    ("--learning-rate", "0"),
    ("--learning-rate", "nan"),
    ("--learning-rate", "fast"),
    ("--batch-size", "0"),
    ("--batch-size", "1e3x"),
    ("--accumulation", "7"),
    ("--label-smoothing", "1"),
    ("--drop-path", "1"),
    ("--image-size", "0"),
    ("--image-size", "33"),
    ("--image-size", "8x4104"),
    ("--image-size", "32x"),
    ("--image-size", "axb"),
    ("--val-fraction", "1"),
    ("--randaugment", "31"),
    ("--cache-mb", "0"),
    ("--precision", "fp8"),
    ("--adapter-dtype", "int8"),
    ("--seed", "-1"),
    ("--seed", "99999999999"),
    ("--threads", "0"),
    ("--threads", "two"),
    ("--threads", "-1"),
    ("--threads", "1000000000000"),
    ("--workers", "1000000000000"),
    ("--device", "gpu"),
    ("--device", "cuda"),
    ("--device", "mps"),
    ("--device", "cuda:x"),
    ("--device", ""),
    ("--device", "cpu:x"),
]


@pytest.mark.parametrize(("flag", "value"), BAD_VALUES)
def test_a_bad_value_of_fit_is_refused_with_the_value(fit, flag, value):
    if flag == "--device" and value.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has one")
    line = fit(flag, value)
    assert flag[2:].split("-")[0] in line and (value in line or value in ("1e3x", "axb", "32x", "nan"))


@pytest.mark.parametrize(
    "arguments", [("evaluate", "--data", "x"), ("predict", "x"), ("inspect",), ("merge", "-o", "x")], ids=lambda a: a[0]
)
@pytest.mark.parametrize(
    ("flag", "value"),
    [("--seed", "99999999999999999999999"), ("--threads", "1000000000000")],
    ids=lambda text: text[:5],
)
def test_a_number_that_is_far_too_large_is_refused_by_every_verb(refused, fitted, arguments, flag, value):
    verb, *more = arguments
    assert f"{flag} {value}" in refused(verb, fitted, *more, flag, value)


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--threads", "0"),
        ("--threads", "x"),
        ("--device", "gpu"),
        ("--device", "cpu:x"),
        ("--precision", "fp8"),
        ("--seed", "x"),
        ("--seed", "-1"),
        ("--weights", "/nowhere"),
    ],
)
def test_a_bad_value_of_other_verbs_is_refused_too(refused, fitted, tree, verb, flag, value):
    where = ["--data", tree] if verb == "evaluate" else [tree]
    assert value in refused(verb, fitted, *where, flag, value)


@pytest.mark.parametrize("value", ["0", "-2", "some", "1.5"])
def test_a_bad_number_of_classes_to_show_is_refused(refused, fitted, tree, value):
    assert value in refused("predict", fitted, tree, "--top", value)


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
@pytest.mark.parametrize("value", ["-0.1", "1.01", "nan", "most"])
def test_a_bad_threshold_is_refused(refused, fitted, tree, verb, value):
    where = ["--data", tree] if verb == "evaluate" else [tree]
    assert f"--abstain {value}" in refused(verb, fitted, *where, "--abstain", value)


def test_features_without_images_or_a_place_are_refused(refused, fitted, tree, tmp_path):
    assert "--data" in refused("embed", fitted) and "both" in refused("embed", fitted, tree, "--data", tree)
    assert "nowhere" in refused("embed", fitted, "nowhere") and "x.txt" in refused("embed", fitted, tree, "-o", "x.txt")
    assert "nowhere" in refused("embed", fitted, tree, "-o", tmp_path / "nowhere" / "x.npz")


@pytest.mark.parametrize("flags", [["--sites", "attn"], ["--image-size", "48"], ["--channels", "3"]])
def test_a_warm_start_with_settings_that_contradict_it_is_refused(refused, fitted, tree, tmp_path, flags):
    out = tmp_path / "x"
    assert flags[1] in refused("fit", "--data", tree, "--warm-start", fitted, "-o", out, *flags) and not out.exists()


def test_a_warm_start_from_nothing_is_refused(refused, tree, tmp_path):
    assert "nowhere" in refused("fit", "--data", tree, "--warm-start", tmp_path / "nowhere", "-o", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["map.gif", "map", "nowhere/map.png"])
def test_a_picture_that_cannot_be_written_is_refused(refused, fitted, tmp_path, name):
    assert name in refused("inspect", fitted, "--picture", tmp_path / name)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("resnet10t", {"num_classes": 2}),
        ("vit_small_patch16_18x2_224", {"num_classes": 0, "embed_dim": 16, "depth": 1, "num_heads": 2}),
        ("cait_xxs24_224", {"num_classes": 0, "embed_dim": 16, "depth": 1, "num_heads": 2}),
    ],
)
def test_a_model_that_cannot_be_adapted_is_refused(fit, tmp_path, architecture, settings):
    import timm
    import timm.models
    from tests.run_helpers import PIXELS

    module = timm.create_model(architecture, **settings)
    module.pretrained_cfg = {"architecture": architecture, **PIXELS}
    timm.models.save_for_hf(module, str(tmp_path / "m"), model_config={"model_args": settings}, safe_serialization=True)
    fit(model=f"local-dir:{tmp_path / 'm'}")


@pytest.mark.parametrize("verb", ["fit", "merge"])
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_folder_of_somebody_else_is_left_alone(ttctune, model, tree, fitted, tmp_path, verb, flags):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    arguments = [verb, "--data", tree, "--model", model] if verb == "fit" else [verb, fitted]
    done = ttctune(*arguments, "-o", folder, *flags)
    assert done.code == 1 and "not ttctune's" in done.err and len(done.err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"] and [p.name for p in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("verb", ["fit", "merge"])
def test_a_file_in_the_place_of_the_folder_is_left_alone(ttctune, model, tree, fitted, tmp_path, verb):
    (tmp_path / "file").write_text("x")
    arguments = [verb, "--data", tree, "--model", model] if verb == "fit" else [verb, fitted]
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        done = ttctune(*arguments, "-o", out)
        assert done.code == 1 and len(done.err.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "x"


def test_a_loss_that_is_not_finite_stops_with_advice_and_leaves_nothing(fit, monkeypatch):
    def nowhere(logits, labels, weights, smoothing):
        return logits.sum(1) * float("nan")

    monkeypatch.setattr("ttctune.training.trainer.image_loss", nowhere)
    line = fit("--quiet")
    assert "nan" in line and "--learning-rate" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--frobnicate"],
        ["brain"],
        ["fit"],
        ["fit", "--data"],
        ["fit", "--data", "x"],
        ["fit", "--model", "x"],
        ["fit", "--data", "x", "--model", "y", "--frobnicate", "3"],
        ["fit", "--data", "x", "--model", "y", "extra"],
        ["evaluate"],
        ["evaluate", "x"],
        ["predict"],
        ["predict", "x"],
        ["embed"],
        ["inspect"],
        ["inspect", "x", "--data", "y"],
        ["merge", "x"],
    ],
)
def test_an_unknown_flag_or_a_missing_argument_is_exit_code_two(refused, arguments):
    assert "--help" in refused(*arguments, code=2)


def test_no_verb_shows_the_help(ttctune):
    done = ttctune()
    shown = done.out + done.err
    assert all(verb in shown for verb in ("fit", "evaluate", "predict", "inspect", "merge"))
    assert done.code == 2 and "ttctune:" not in done.err


def test_an_error_that_nobody_foresaw_is_not_hidden(ttctune, fitted, tree, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ttctune.adapted.Adapted.evaluate", broken)
    with pytest.raises(ZeroDivisionError):
        ttctune("evaluate", fitted, "--data", tree)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict", "embed"])
def test_running_out_of_memory_anywhere_is_one_line(refused, fitted, tree, model, tmp_path, monkeypatch, verb, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("ttctune.run.open_images", full)
    monkeypatch.setattr("ttctune.adapted.outputs_of", full)
    arguments = {
        "fit": ["fit", "--data", tree, "--model", model, "-o", tmp_path / "out"],
        "evaluate": ["evaluate", fitted, "--data", tree],
        "predict": ["predict", fitted, tree],
        "embed": ["embed", fitted, tree, "-o", tmp_path / "x.npz"],
    }[verb]
    assert "memory" in refused(*arguments)


def test_a_system_error_on_reading_is_one_line(refused, fitted, tree, monkeypatch):
    def broken(*_, **__):
        raise OSError(5, "Input/output error", "/data/x")

    monkeypatch.setattr("ttctune.adapted.Adapted.evaluate", broken)
    assert "/data/x" in refused("evaluate", fitted, "--data", tree)
