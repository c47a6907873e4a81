"""Each verb does its work, and prints what a person or a program can read."""

import csv
import io
import json
import re
import shutil
import xml.dom.minidom
from pathlib import Path

import numpy as np

import ttctune.torchvision_operators  # noqa: F401  isort: skip  (before timm)

import pytest
import timm
import torch
from PIL import Image
from tests.images.pictures import write_image_tree
from tests.images.shards import write_as_shards
from tests.run_helpers import save_model, sha, short_flags, vit, write_record

from ttctune import run as run_module
from ttctune.loading import load
from ttctune.version import __version__


def fit(ttctune, tree, model, *more, **settings):
    return ttctune("fit", "--data", tree, "--model", model, *short_flags(**settings), *more)


def test_fit_says_what_it_does_what_it_reached_and_what_to_try_next(ttctune, tree, model, tmp_path):
    done = fit(ttctune, tree, model, "-o", tmp_path / "x")
    assert done.code == 0
    progress = done.err.splitlines()
    assert re.search(r"at 32 x 32 pixels; 3 classes; images: 15 train, 6 val", progress[0])
    assert progress[1].startswith("6 steps in all: ")
    assert re.match(r"align 1/1  loss \d\.\d{3}  accuracy \d+\.\d%  \d+ images/s  \d+\.\d s  \d:\d\d left", progress[2])
    assert progress[3] == "scoring 128 channels at 4 sites" and progress[4].startswith("tune 1/1")
    assert [line.split()[1] for line in progress if line.startswith("  ttctune")] == [
        "evaluate", "predict", "inspect", "merge",
    ]  # fmt: skip
    assert re.search(r"^val accuracy +\d+\.\d% on 6 images$", done.out, re.M)
    assert "720 in channels, 320 in norms, 99 in head" in done.out and str(tmp_path / "x") in done.out


def test_the_next_commands_that_fit_prints_work(ttctune, tree, model, tmp_path, monkeypatch):
    import shlex

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tree, tmp_path / "my images")
    (tmp_path / "IMAGE.jpg").write_bytes(next(tree.rglob("*.png")).read_bytes())
    done = fit(ttctune, "my images", model, "-o", "my run")
    commands = [shlex.split(line)[1:] for line in done.err.splitlines() if line.startswith("  ttctune")]
    for command in commands:
        assert ttctune(*command).code == 0, command
    assert (tmp_path / "channels.png").is_file() and (tmp_path / "merged" / "config.json").is_file()


def test_fit_prints_json_alone_on_stdout(ttctune, tree, model, tmp_path):
    result = fit(ttctune, tree, model, "-o", tmp_path / "x", "--json", "--quiet")
    assert result.code == 0 and result.err == ""
    assert result.json["folder"] == str(tmp_path / "x")
    assert result.json["parameters"] == {"channels": 720, "norms": 320, "head": 99}
    assert result.json["metrics"]["images"] == 6 and result.json["settled"]["precision"] == "fp32"


def test_fit_is_silent_when_quiet(ttctune, tree, model, tmp_path):
    assert fit(ttctune, tree, model, "-o", tmp_path / "x", "--quiet")[1:] == ("", "")


def test_fit_writes_to_a_new_folder_in_runs_when_nobody_says(ttctune, tree, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert fit(ttctune, tree, model).code == 0
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"shapes-vit", "shapes-vit-2"}
    assert fit(ttctune, tree, model + "/").code == 0
    assert (tmp_path / "runs" / "shapes-vit-3").is_dir()


def test_fit_goes_on_with_the_only_unfinished_run_when_none_is_named(ttctune, tree, model, tmp_path, monkeypatch):
    from ttctune import run as run_module

    monkeypatch.chdir(tmp_path)
    assert "0 unfinished runs" in fit(ttctune, tree, model, "--resume").err

    def killed(*_):
        raise SystemExit(9)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(run_module, "finish", killed)
        fit(ttctune, tree, model)
    assert (tmp_path / "runs" / "shapes-vit" / "checkpoint").is_dir()
    assert fit(ttctune, tree, model, "--resume").code == 0
    assert not (tmp_path / "runs" / "shapes-vit" / "checkpoint").exists()


def test_fit_takes_every_kind_of_setting(ttctune, tree, model, tmp_path):
    done = ttctune(
        "fit", "--data", tree, "--model", model, "-o", tmp_path / "x", "--preset", "paper", "--align-epochs", 1,
        "--tune-epochs", 1, "--channels", 5, "--image-size", "32x48", "--flip", "--no-crop", "--precision", "fp32",
        "--sites", "attn,mlp", "--threads", 1, "--device", "cpu", "--seed", 7, "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    recipe = json.loads((tmp_path / "x" / "adapter.json").read_text())["recipe"]
    assert recipe["tune_norms"] == "frozen" and recipe["channels"] == 5 and recipe["image_size"] == [32, 48]
    assert recipe["flip"] is True and recipe["crop"] is False and recipe["sites"] == ["attn", "mlp"]
    assert recipe["seed"] == 7


def test_fit_replaces_a_finished_run_only_when_asked(ttctune, tree, model, fitted, tmp_path):
    folder = shutil.copytree(fitted, tmp_path / "x")
    old = sha(folder / "adapter.safetensors")
    refused = fit(ttctune, tree, model, "-o", folder, seed=1)
    assert refused.code == 1 and "--overwrite" in refused.err and sha(folder / "adapter.safetensors") == old
    assert fit(ttctune, tree, model, "-o", folder, "--overwrite", seed=1).code == 0
    assert sha(folder / "adapter.safetensors") != old


@pytest.mark.parametrize("json_too", [False, True])
def test_a_dry_run_says_what_it_would_do_and_writes_nothing(ttctune, tree, model, tmp_path, monkeypatch, json_too):
    monkeypatch.chdir(tmp_path)
    done = fit(ttctune, tree, model, "--dry-run", "-o", "x", *(["--json"] if json_too else []))
    assert done.code == 0 and not list(tmp_path.iterdir())
    if json_too:
        assert done.json["parameters"] == {"channels": 720, "norms": 320, "head": 99}
        assert done.json["images"] == {"train": 15, "val": 6} and done.json["seconds"] > 0 and done.json["memory"] > 0
    else:
        assert "720 in channels" in done.out and "MB" in done.out and re.search(r"time +about \d+ s", done.out)


def test_evaluate_reads_the_test_part_and_says_so(ttctune, fitted, tree):
    done = ttctune("evaluate", fitted, "--data", tree)
    assert done.code == 0 and done.err == ""
    assert re.search(r"^read +test, 9 images$", done.out, re.M)
    assert all(name in done.out for name in ("class0", "class1", "class2", "true \\ predicted"))
    assert not re.search(r"[ \t]$", done.out, re.M)


def test_evaluate_prints_the_same_numbers_as_json(ttctune, fitted, tree):
    result = ttctune("evaluate", fitted, "--data", tree, "--json").json
    want = load(fitted).evaluate(tree)
    for key in ("part", "images", "skipped", "accuracy", "balanced_accuracy", "ece", "per_class", "confusion"):
        assert result[key] == getattr(want, key), key
    assert result["part"] == "test" and sum(map(sum, result["confusion"])) == 9


def test_evaluate_without_a_test_part_reads_val_and_says_so(ttctune, fitted, tree, tmp_path):
    shutil.copytree(tree, tmp_path / "t")
    shutil.rmtree(tmp_path / "t" / "test")
    assert re.search(r"^read +val, 6 images$", ttctune("evaluate", fitted, "--data", tmp_path / "t").out, re.M)
    shutil.rmtree(tmp_path / "t" / "val")
    brief = ttctune("evaluate", fitted, "--data", tmp_path / "t" / "train", "--quiet")
    assert re.search(r"^read +all images, 15 images$", brief.out, re.M) and "class0" not in brief.out


def test_evaluate_counts_the_images_it_left_out(ttctune, fitted, tree, tmp_path):
    shutil.copytree(tree, tmp_path / "t")
    (tmp_path / "t" / "test" / "class0" / "000.png").write_bytes(b"rubbish")
    refused = ttctune("evaluate", fitted, "--data", tmp_path / "t")
    assert refused.code == 1 and "000.png" in refused.err
    done = ttctune("evaluate", fitted, "--data", tmp_path / "t", "--skip-bad")
    assert done.code == 0 and re.search(r"^left out +1 unreadable image", done.out, re.M)
    assert ttctune("evaluate", fitted, "--data", tmp_path / "t", "--skip-bad", "--json").json["skipped"] == 1


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_predict_names_files_and_classes_with_falling_probability(ttctune, fitted, tree, precision):
    files = sorted((tree / "test").rglob("*.png"))
    done = ttctune("predict", fitted, tree / "test", "--json", "--precision", precision)
    assert done.code == 0 and [row["file"] for row in done.json] == [str(f) for f in files]
    want = load(fitted).predict(files, "fp32" if precision == "auto" else precision)
    for row, probabilities in zip(done.json, want, strict=True):
        shown = [p["probability"] for p in row["predictions"]]
        assert shown == sorted(shown, reverse=True) and len(shown) == 3
        assert np.isclose(sum(shown), 1) and np.isclose(shown[0], probabilities.max(), atol=1e-6)


def test_predict_prints_csv_that_a_spreadsheet_reads(ttctune, fitted, tree, tmp_path):
    odd = tmp_path / 'a, "b".png'
    shutil.copy(next(tree.rglob("*.png")), odd)
    rows = list(csv.DictReader(io.StringIO(ttctune("predict", fitted, odd, "--csv", "--top", 2).out)))
    assert [(row["file"], row["rank"]) for row in rows] == [(str(odd), "1"), (str(odd), "2")]
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"]) and rows[0]["class"].startswith("class")


def test_predict_prints_a_line_an_image_with_its_whole_name(ttctune, fitted, tree, tmp_path):
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    shutil.copy(next(tree.rglob("*.png")), deep / "c.png")
    done = ttctune("predict", fitted, deep / "c.png", *sorted(tree.rglob("*.png"))[:4], "--top", 1)
    lines = done.out.splitlines()
    assert len([line for line in lines if "%" in line]) == 5
    assert sum(str(deep / "c.png") in line for line in lines) == 1
    assert all(len(re.findall("class[012] ", line)) == 1 for line in lines if "%" in line)


def test_a_file_named_twice_is_answered_twice(ttctune, fitted, tree):
    file = next(tree.rglob("*.png"))
    done = ttctune("predict", fitted, file, file, "--json")
    assert [row["file"] for row in done.json] == [str(file)] * 2 and done.err == ""


def test_predict_abstains_below_the_threshold_in_every_format(ttctune, fitted, tree):
    where = ("predict", fitted, tree / "test", "--top", 2)
    plain = ttctune(*where, "--json").json
    assert all("answer" not in row for row in plain)
    tops = sorted(row["predictions"][0]["probability"] for row in plain)
    threshold = tops[4]
    rows = ttctune(*where, "--json", "--abstain", threshold).json
    for before, row in zip(plain, rows, strict=True):
        first = before["predictions"][0]
        assert row["predictions"] == before["predictions"]
        assert row["answer"] == (first["class"] if first["probability"] >= threshold else None)
    silent = sum(row["answer"] is None for row in rows)
    assert silent == sum(top < threshold for top in tops) == 4
    done = ttctune(*where, "--csv", "--abstain", threshold)
    table = list(csv.DictReader(io.StringIO(done.out)))
    assert [r["answer"] or None for r in table[::2]] == [r["answer"] for r in rows]
    assert done.err == f"answered 5 of 9 images, abstained from {silent}\n"
    assert ttctune(*where, "--abstain", threshold).out.count("(abstains)") == silent
    assert ttctune(*where, "--abstain", 0).out.count("(abstains)") == 0


def test_evaluate_shows_what_thresholds_chosen_on_val_do_here(ttctune, fitted, tree, tmp_path):
    folder = shutil.copytree(fitted, tmp_path / "x")
    record = json.loads((folder / "adapter.json").read_text())
    assert record["calibration"]["note"] == "6 images of val are fewer than 100"
    chosen = {"target": 0.9, "abstain": 0.5, "coverage": 0.75, "accuracy": 0.91}
    record["calibration"] |= {"temperature": 0.5, "images": 120, "nll": [1, 0.5], "ece": [0.2, 0.1]}
    record["calibration"]["thresholds"] = [chosen]
    write_record(folder, record)
    result = ttctune("evaluate", folder, "--data", tree, "--abstain", 0.7, "--json").json
    first, second = result["abstaining"]
    assert (first["abstain"], first["val_coverage"], first["target"]) == (0.5, 0.75, 0.9)
    assert second["abstain"] == 0.7 and "target" not in second
    plain = ttctune("evaluate", fitted, "--data", tree, "--json").json
    assert result["temperature"] == 0.5 and result["accuracy"] == plain["accuracy"]
    assert result["ece_raw"] == plain["ece"] == plain["ece_raw"] != result["ece"]
    files = sorted((tree / "test").rglob("*.png"))
    probabilities = load(folder).predict(files)
    right = [f"class{i}" == f.parent.name for f, i in zip(files, probabilities.argmax(1), strict=True)]
    sure = probabilities.max(1) >= 0.5
    assert first["coverage"] == pytest.approx(sure.mean())
    assert first["accuracy"] == (pytest.approx(np.mean(np.array(right)[sure])) if sure.any() else None)
    logits = load(fitted).logits(files)
    assert np.allclose(probabilities, (logits / 0.5).softmax(1), atol=1e-6)
    shown = ttctune("evaluate", folder, "--data", tree)
    assert re.search(r"90% +--abstain 0.5 +75.0% +91.0%", shown.out) and "without the temperature, 0.50" in shown.out
    assert re.search(r"90% +--abstain 0.5 +75.0% +91.0%", ttctune("inspect", folder).out)
    assert "so no clean figure" in ttctune("inspect", folder).out


def test_embed_writes_what_the_head_reads(ttctune, fitted, tree, tmp_path):
    done = ttctune("embed", fitted, tree / "test", "-o", tmp_path / "x.npz")
    assert done.code == 0 and "9 images x 32 features" in done.out and done.err == ""
    read, files = np.load(tmp_path / "x.npz"), sorted((tree / "test").rglob("*.png"))
    assert read["file"].tolist() == [str(f) for f in files] and set(read) == {"file", "features"}
    adapted = load(fitted)
    head = adapted.attachment.heads["head"]
    logits = torch.from_numpy(read["features"]) @ head.weight.T + head.bias
    assert torch.allclose(logits, adapted.logits(files), atol=1e-5)
    assert np.allclose(adapted.embed(files), read["features"], atol=1e-6) and adapted.embed([]).shape == (0, 32)


def test_embed_writes_part_and_class_of_a_data_folder(ttctune, fitted, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("old")
    done = ttctune("embed", fitted, "--data", tree, "-o", "x.csv", "--json")
    assert done.json == {"file": "x.csv", "images": 30, "features": 32, "skipped": 0}
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert all(f"{row['part']}/{row['class']}/" in row["file"] for row in rows)
    assert {part: sum(row["part"] == part for row in rows) for part in ("train", "val", "test")} == {
        "train": 15, "val": 6, "test": 9,
    }  # fmt: skip
    assert ttctune("embed", fitted, "--data", tree, "--quiet")[1:] == ("", "")
    features = np.load(tmp_path / "features.npz")["features"]
    assert np.array_equal(np.array([[row[f"f{i}"] for i in range(32)] for row in rows], np.float32), features)
    shards = write_as_shards(tree, tmp_path / "shards")
    assert ttctune("embed", fitted, "--data", shards, "-o", "shards.npz", "--quiet").code == 0
    assert np.array_equal(np.load("shards.npz")["features"], features)


def test_embed_leaves_bad_images_out_when_asked_and_keeps_names_beside_their_features(ttctune, fitted, tree, tmp_path):
    shutil.copytree(tree / "test", tmp_path / "t")
    (tmp_path / "t" / "class1" / "000.png").write_bytes(b"rubbish")
    refused = ttctune("embed", fitted, tmp_path / "t", "-o", tmp_path / "x.npz")
    assert refused.code == 1 and "000.png" in refused.err and not (tmp_path / "x.npz").exists()
    done = ttctune("embed", fitted, tmp_path / "t", "-o", tmp_path / "x.npz", "--skip-bad")
    assert done.code == 0 and "left out 1" in done.err
    read = np.load(tmp_path / "x.npz")
    assert len(read["features"]) == 8
    assert np.allclose(load(fitted).embed(read["file"].tolist()), read["features"], atol=1e-6)


def test_fit_goes_on_from_an_earlier_run(ttctune, fitted, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = ttctune("fit", "--data", tree, "--warm-start", fitted, "--tune-epochs", 1)
    assert done.code == 0 and "3 classes taken over; selection kept" in done.err
    assert "warm start from shapes: 3 classes" in ttctune("inspect", tmp_path / "runs" / "shapes-shapes").out
    plan = ttctune("fit", "--data", tree, "--warm-start", fitted, "--dry-run", "--json", "--quiet")
    assert plan.json["parameters"] == {"channels": 720, "norms": 320, "head": 99}


def test_predict_fits_a_narrow_terminal(ttctune, fitted, tree, tmp_path, monkeypatch):
    shutil.copytree(tree / "test", tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    lines = ttctune("predict", fitted, "pictures").out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert all(sum(str(f.relative_to(tmp_path)) in line for line in lines) == 1 for f in tmp_path.rglob("*.png"))


def test_predict_leaves_unreadable_images_out_when_asked_and_says_how_many(ttctune, fitted, tree, tmp_path):
    shutil.copy(next(tree.rglob("*.png")), tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"rubbish")
    refused = ttctune("predict", fitted, tmp_path)
    assert refused.code == 1 and "bad.png" in refused.err and refused.out == ""
    done = ttctune("predict", fitted, tmp_path, "--skip-bad", "--json")
    assert len(done.json) == 1 and "left out 1 unreadable image" in done.err
    assert ttctune("predict", fitted, tmp_path, "--skip-bad", "--json", "--quiet").err == ""


def test_inspect_shows_the_record_and_the_chosen_channels(ttctune, fitted, model):
    done = ttctune("inspect", fitted)
    assert done.code == 0 and model in done.out and "class0, class1, class2" in done.out
    assert re.search(r"^gates +a scale and a shift of every channel at qkv, fc1$", done.out, re.M)
    chosen = load(fitted).selection
    for site, channels in chosen.items():
        assert re.search(rf"^{re.escape(site)} +4 +\d+% +{', '.join(map(str, channels.tolist()))}$", done.out, re.M)


def test_inspect_prints_record_and_selection_as_json(ttctune, fitted):
    result = ttctune("inspect", fitted, "--json").json
    assert result["selection"] == {site: channels.tolist() for site, channels in load(fitted).selection.items()}
    assert result["classes"] == ["class0", "class1", "class2"] and result["ttctune_format"] == 1


def test_inspect_needs_no_backbone(ttctune, tree, tmp_path):
    name = save_model(tmp_path / "model")
    assert fit(ttctune, tree, name, "-o", tmp_path / "x").code == 0
    shutil.rmtree(tmp_path / "model")
    assert ttctune("inspect", tmp_path / "x").code == 0
    assert ttctune("predict", tmp_path / "x", tree).code == 1


@pytest.mark.parametrize("ending", ["png", "svg", "PNG"])
def test_inspect_draws_the_map_of_blocks_and_channels(ttctune, fitted, tmp_path, ending):
    file = tmp_path / f"map.{ending}"
    done = ttctune("inspect", fitted, "--picture", file)
    assert done.code == 0 and f"wrote {file}" in done.err
    if ending == "svg":
        text = xml.dom.minidom.parse(str(file)).documentElement
        assert text.tagName == "svg"
    else:
        picture = Image.open(file)
        orange = (np.asarray(picture.convert("RGB")) == (0xD9, 0x5F, 0x02)).all(2)
        assert picture.width > 500 and 0.02 < orange.mean() < 0.4
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_merge_writes_a_model_that_timm_opens_with_equal_outputs(ttctune, fitted, tmp_path):
    done = ttctune("merge", fitted, "-o", tmp_path / "merged")
    assert done.code == 0 and "create_model" in done.err and done.out == f"wrote {tmp_path / 'merged'}\n"
    plain = timm.create_model(f"local-dir:{tmp_path / 'merged'}", pretrained=True).eval()
    adapted = load(fitted)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(plain(x), adapted.model(x), atol=1e-5)
    assert plain.num_classes == 3 and not any("ttctune" in type(m).__module__ for m in plain.modules())
    config = timm.data.resolve_model_data_config(plain)
    assert config["input_size"] == (3, 32, 32) and config["crop_mode"] == "squash" and config["crop_pct"] == 1.0
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["label_names"] == list(adapted.classes)


def test_whoever_may_read_the_folder_may_read_the_merged_model(ttctune, fitted, tmp_path):
    assert ttctune("merge", fitted, "-o", tmp_path / "m", "--quiet").code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "m").iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_a_merged_model_of_another_input_size_opens_at_that_size(ttctune, tree, model, tmp_path):
    assert fit(ttctune, tree, model, "-o", tmp_path / "x", image_size="48x64", resize="crop").code == 0
    assert ttctune("merge", tmp_path / "x", "-o", tmp_path / "merged").code == 0
    plain = timm.create_model(f"local-dir:{tmp_path / 'merged'}", pretrained=True).eval()
    x = torch.randn(2, 3, 48, 64)
    with torch.no_grad():
        assert torch.allclose(plain(x), load(tmp_path / "x").model(x), atol=1e-5)
    assert timm.data.resolve_model_data_config(plain)["input_size"] == (3, 48, 64)


def test_a_merged_model_is_a_backbone_again(ttctune, fitted, tree, tmp_path):
    assert ttctune("merge", fitted, "-o", tmp_path / "merged", "--json").json == {"folder": str(tmp_path / "merged")}
    assert fit(ttctune, tree, f"local-dir:{tmp_path / 'merged'}", "-o", tmp_path / "again").code == 0


def test_merge_replaces_a_merged_model_only_when_asked(ttctune, fitted, tmp_path):
    assert ttctune("merge", fitted, "-o", tmp_path / "m").code == 0
    refused = ttctune("merge", fitted, "-o", tmp_path / "m")
    assert refused.code == 1 and "--overwrite" in refused.err
    assert ttctune("merge", fitted, "-o", tmp_path / "m", "--overwrite", "--quiet") == (0, "", "")


def test_merge_never_replaces_an_adapter_nor_what_it_reads(ttctune, fitted, tree, tmp_path):
    copy = shutil.copytree(fitted, tmp_path / "copy")
    for source in (copy, fitted):
        done = ttctune("merge", source, "-o", copy, "--overwrite")
        assert done.code == 1 and "is an adapter; expected" in done.err
    load(copy)
    merged = tmp_path / "merged"
    assert ttctune("merge", fitted, "-o", merged, "--quiet").code == 0
    assert fit(ttctune, tree, f"local-dir:{merged}", "-o", tmp_path / "again").code == 0
    before = {path.name: path.read_bytes() for path in merged.iterdir()}
    done = ttctune("merge", tmp_path / "again", "-o", merged, "--overwrite")
    assert done.code == 1 and "which is read" in done.err
    assert {path.name: path.read_bytes() for path in merged.iterdir()} == before


def test_fit_in_the_folder_of_the_images_takes_its_runs_for_no_class(ttctune, model, tmp_path, monkeypatch):
    write_image_tree(tmp_path / "shapes", 3, 5)
    monkeypatch.chdir(tmp_path / "shapes")
    for name in ("shapes-vit", "shapes-vit-2"):
        assert fit(ttctune, ".", model).code == 0
        assert load(Path("runs", name)).classes == ("class0", "class1", "class2")
    assert ttctune("evaluate", "runs/shapes-vit", "--data", ".").code == 0


def test_a_refused_fit_leaves_no_folder_that_it_made(ttctune, tree, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more in ([], ["-o", "a/b/x"]):
        assert fit(ttctune, tree, model, *more, channels=33).code == 1
        assert not list(tmp_path.iterdir())


def test_fits_that_begin_at_once_get_folders_of_their_own(ttctune, tree, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = []

    def begin(*arguments, **settings):
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        others.append(fit(ttctune, tree, model).code)
        return adapt(*arguments, **settings)

    adapt = run_module.adapt
    monkeypatch.setattr(run_module, "adapt", begin)
    assert fit(ttctune, tree, model).code == 0 and others == [0]
    assert sorted(path.name for path in Path("runs").iterdir()) == ["shapes-vit", "shapes-vit-2"]


def test_weights_from_a_file_serve_every_verb(ttctune, tree, tmp_path):
    model = vit(seed=2)
    name = save_model(tmp_path / "random", vit(seed=3))
    save_model(tmp_path / "real", model)
    weights = ["--weights", tmp_path / "real" / "model.safetensors"]
    assert fit(ttctune, tree, name, "-o", tmp_path / "x", *weights).code == 0
    assert ttctune("evaluate", tmp_path / "x", "--data", tree, *weights).code == 0
    assert ttctune("predict", tmp_path / "x", tree, *weights).code == 0
    assert ttctune("merge", tmp_path / "x", "-o", tmp_path / "m", *weights).code == 0
    assert "digest" in ttctune("evaluate", tmp_path / "x", "--data", tree).err


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("verb", ["fit", "evaluate", "predict", "inspect", "merge", "report", "models", "doctor"])
def test_help_explains_every_verb_with_an_example(ttctune, verb, flag):
    done = ttctune(verb, flag)
    assert done.code == 0 and done.err == "" and f"ttctune {verb}" in done.out


def test_the_version_is_printed(ttctune):
    assert ttctune("--version").out == f"ttctune {__version__}\n"


def test_class_names_that_look_like_markup_are_printed_as_they_are(ttctune, model, tmp_path):
    tree = write_image_tree(tmp_path / "t", ("[red]x", ":smile:"), 4)
    assert fit(ttctune, tree, model, "-o", tmp_path / "x", "--quiet").code == 0
    for command in (
        ["evaluate", tmp_path / "x", "--data", tree],
        ["predict", tmp_path / "x", tree],
        ["inspect", tmp_path / "x"],
    ):
        shown = ttctune(*command).out
        assert "[red]x" in shown and ":smile:" in shown


def test_many_classes_are_shown_by_their_worst_pairs(capsys):
    from ttctune.cli import printing
    from ttctune.evaluation import evaluate_logits

    names = tuple(f"species number {i}" for i in range(20))
    logits = torch.eye(20)[torch.arange(60) % 20 // 2 * 2]
    printing.evaluation(evaluate_logits(logits, torch.arange(60) % 20, names, "test"), names)
    shown = capsys.readouterr().out
    assert "most often taken for" in shown and re.search(r"^species number 1 +species number 0 +3$", shown, re.M)


@pytest.mark.parametrize("classes", [3, 12, 20])
@pytest.mark.parametrize("length", [3, 30])
def test_tables_fit_eighty_columns(capsys, monkeypatch, classes, length):
    from ttctune.cli import printing
    from ttctune.evaluation import evaluate_logits

    monkeypatch.setenv("COLUMNS", "80")
    names = tuple(f"{i}".rjust(length, "c") for i in range(classes))
    labels = torch.arange(60) % classes
    printing.evaluation(evaluate_logits(torch.randn(60, classes), labels, names, "test"), names)
    rows = [
        {
            "file": "pictures/of/some/length/0000.jpg",
            "predictions": [{"class": n, "probability": 0.1} for n in names[:5]],
        }
    ]
    printing.predictions(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert all(line == line.rstrip() for line in lines) and not any("…" in line for line in lines)


def test_predict_goes_on_when_the_last_batch_holds_bad_images_alone(ttctune, fitted, tree, tmp_path, monkeypatch):
    monkeypatch.setattr("ttctune.adapted.BATCH", 2)
    folder = tmp_path / "mixed"
    folder.mkdir()
    for n, path in enumerate(sorted(tree.rglob("*.png"))[:2]):
        shutil.copy(path, folder / f"{n}.png")
    (folder / "z.png").write_bytes(b"no picture")
    done = ttctune("predict", fitted, folder, "--skip-bad", "--json")
    assert done.code == 0 and len(done.json) == 2 and "left out 1" in done.err


def test_an_adapter_opens_on_a_backbone_that_has_moved(ttctune, tree, tmp_path):
    name = save_model(tmp_path / "here")
    assert fit(ttctune, tree, name, "-o", tmp_path / "x").code == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert ttctune("evaluate", tmp_path / "x", "--data", tree).code == 1
    moved = f"local-dir:{tmp_path / 'there'}"
    assert ttctune("evaluate", tmp_path / "x", "--data", tree, "--model", moved).code == 0


def test_a_replacing_run_that_was_interrupted_goes_on_under_its_own_name(ttctune, tree, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(ttctune, tree, model, "-o", "runs/x").code == 0
    with monkeypatch.context() as patch:
        patch.setattr("ttctune.run._measured", _interrupt)
        assert fit(ttctune, tree, model, "-o", "runs/x", "--overwrite", seed=7).code == 130
    assert fit(ttctune, tree, model, "--resume", "--overwrite", seed=7).code == 0
    assert load(tmp_path / "runs" / "x").recipe.seed == 7
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x"]


def _interrupt(*arguments):
    raise KeyboardInterrupt


def test_a_number_of_processes_without_a_launcher_is_refused(ttctune, tree, model, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = fit(ttctune, tree, model, "-o", tmp_path / "x")
    assert done.code == 1 and "WORLD_SIZE = 2 without RANK" in done.err and not (tmp_path / "x").exists()
