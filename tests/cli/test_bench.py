"""`ttctune bench`: what it refuses, and what it says when all is done."""

import json

import pytest
from tests.bench.tasks import Here, conditions, write_tasks
from tests.images.shards import write_as_shards
from tests.run_helpers import save_model

from ttctune.bench.engine import Done
from ttctune.bench.grid import Conditions
from ttctune.bench.run_job import failed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def bench(ttctune, tmp_path, root, model):
    """The command on two tasks, with flags on top."""

    def run(*more, root=root, model=model, methods="linear,norm"):
        flags = ["--suite", "folder", "--root", root, "--model", model, "--methods", methods, "--epochs", "2"]
        return ttctune("bench", *flags, "-o", tmp_path / "out", *more)

    return run


@pytest.fixture
def imagined(monkeypatch):
    """Jobs that are done without processes and without training; those on bees fail."""

    def instead(job):
        return Done(job, failed(job, engine.conditions, "a loss of nan")) if job.task.name == "bees" else None

    engine = Here(conditions("vit"), instead=instead)

    def engines(conditions: Conditions, jobs: int) -> Here:
        engine.conditions = conditions
        return engine

    monkeypatch.setattr("ttctune.bench.benchmark.LocalEngine", engines)
    return engine


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--suite", "vtab1k"], "--suite vtab1k; expected vtab or folder"),
        (["--root", "/nowhere"], "/nowhere"),
        (["--methods", "linaer"], "try linear"),
        (["--methods", ","], "no methods"),
        (["--model", "deit_tiny_patch16_225"], "deit_tiny_patch16_224"),
        (["--weights", "/nowhere"], "/nowhere"),
        (["--seeds", "0"], "--seeds 0"),
        (["--epochs", "-1"], "--epochs -1"),
        (["--image-size", "33"], "image_size 33"),
        (["--precision", "fp8"], "precision"),
        (["--split", "train"], "--split train"),
        (["--trials", "few"], "--trials few"),
        (["--engine", "slurm"], "local or ray"),
        (["--jobs", "0"], "--jobs 0"),
        (["--gpus", "-1"], "--gpus -1"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--address", "x:1"], "--engine ray"),
        (["--trials", "3", "--settings", "x.toml"], "leave the other out"),
        (["--shots", "0"], "--shots 0"),
        (["--legacy", "best"], "imagenet-colours or unchanged-colours or best-test-epoch"),
        (["--legacy", "best-test-epoch"], "add --split test"),
        (["--folds", "2"], "add --split cv"),
        (["--split", "cv", "--folds", "6"], "--folds 6; expected 1 to 5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_is_one_line_and_leaves_nothing(bench, tmp_path, flags, reason):
    done = bench(*flags)
    lines = done.err.splitlines()
    assert (done.code, done.out) == (1, "") and len(lines) == 1, done
    assert lines[0].startswith("ttctune: ") and reason in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused_untouched(bench, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    done = bench()
    assert done.code == 1 and "holds no results" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_failed_jobs_are_listed_and_the_exit_code_says_so(bench, imagined, tmp_path):
    done = bench("--seeds", "2")
    assert done.code == 1 and "Traceback" not in done.err
    assert "4 jobs done, 0 done before, 4 failed" in done.err
    rows = [line.split(maxsplit=1) for line in done.out.splitlines() if line.startswith("bees")]
    assert rows == [[f"bees/{m}/seed{s}", "a loss of nan"] for s in range(2) for m in ("linear", "norm")]
    imagined.instead = lambda job: None
    done = bench("--seeds", "2", "--json", "--quiet")
    assert done.code == 0 and done.err == ""
    assert done.json == {"folder": str(tmp_path / "out"), "done": 4, "done_before": 4, "failed": []}


def test_results_of_other_images_do_not_count_as_done(bench, imagined, tmp_path):
    imagined.instead = lambda job: None
    assert bench().code == 0
    other = write_tasks(tmp_path / "other", ("bees", "ants"))
    done = bench(root=other)
    assert done.code == 1 and f"other images; expected those of {other / 'ants'}; give its --root" in done.err


def test_files_that_stand_in_two_parts_are_named_before_the_jobs(bench, imagined, tmp_path):
    imagined.instead = lambda job: None
    root = write_tasks(tmp_path / "tasks")
    val, train = (sorted((root / "ants" / part).rglob("*.png"))[0] for part in ("val", "train"))
    val.write_bytes(train.read_bytes())
    done = bench(root=root)
    assert done.code == 0 and "ants: 1 image of val in train too (" in done.err


def test_pictures_of_shards_that_stand_in_two_parts_are_named_too(bench, imagined, tmp_path):
    imagined.instead = lambda job: None
    root = write_tasks(tmp_path / "tasks")
    val, train = (sorted((root / "ants" / part).rglob("*.png"))[0] for part in ("val", "train"))
    val.write_bytes(train.read_bytes())
    write_as_shards(root / "ants", tmp_path / "shards" / "ants")
    done = bench(root=tmp_path / "shards")
    assert done.code == 0 and "ants: 1 image of val in train too (" in done.err


def test_settings_chosen_beforehand_stand_in_the_records(bench, imagined, tmp_path):
    file = tmp_path / "chosen.toml"
    file.write_text("[norm]\nlearning_rate = 0.003\ntrials = 4\n[ttc]\nchannels = 0.5\n")
    imagined.instead = lambda job: None
    assert bench("--settings", file, methods="linear,norm,ttc").code == 0
    record = {name: json.loads((tmp_path / f"out/ants/{name}/seed0.json").read_text()) for name in ("norm", "ttc")}
    assert record["norm"]["settings"]["learning_rate"] == 0.003
    assert (record["norm"]["trials"], record["norm"]["chosen_by"]) == (4, "search on val")
    assert record["ttc"]["settings"]["channels"] == 0.5 and record["ttc"]["chosen_by"] == "given"
    file.write_text("[norm]\nlearning_rate = 0.001\n")
    done = bench("--settings", file)
    assert done.code == 1 and "made with learning_rate = 0.003; expected 0.001" in done.err


def test_a_variant_stands_beside_its_method_with_settings_of_its_own(bench, imagined, tmp_path):
    file = tmp_path / "variants.toml"
    file.write_text('["ttc@few"]\nchannels = 0.0625\n["lora@r=2"]\nrank = 2\n')
    imagined.instead = lambda job: None
    assert bench("--settings", file, methods="ttc,ttc@few,lora@r=2").code == 0
    methods = ("ttc", "ttc@few", "lora@r=2")
    settings = {m: json.loads((tmp_path / f"out/ants/{m}/seed0.json").read_text())["settings"] for m in methods}
    assert (settings["ttc"]["channels"], settings["ttc@few"]["channels"]) == (0.125, 0.0625)
    assert settings["lora@r=2"]["rank"] == 2


@pytest.mark.parametrize(
    ("methods", "text", "reason"),
    [
        ("ttc@few", "[ttc]\nchannels = 8", 'ttc@few without settings; expected a table ["ttc@few"]'),
        ("ttc@few", '["ttc@few"]', "ttc@few without settings"),
        ("tcc@few", '["ttc@few"]\nchannels = 8', "method 'tcc@few'"),
        ("ttc@../few", '["ttc@few"]\nchannels = 8', "variant 'ttc@../few'"),
        ("ttc@", '["ttc@"]\nchannels = 8', "variant 'ttc@'"),
    ],
)
def test_a_variant_that_is_none_is_refused(bench, tmp_path, methods, text, reason):
    (tmp_path / "variants.toml").write_text(text)
    done = bench("--settings", tmp_path / "variants.toml", methods=methods)
    assert (done.code, len(done.err.splitlines())) == (1, 1) and reason in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("learning_rate = 1", "a table [METHOD]"),
        ("[linaer]", "linaer"),
        ("[norm]\nlearning_rat = 1", "learning_rat"),
        ("[norm]\nlearning_rate = -1", "learning_rate"),
        ("[norm]\ntrials = -1", "trials = -1"),
        ("[norm]\nseed = 7", "seed of norm; expected what is the same for all methods left out"),
        ("[ttc]\ntune_epochs = 30", "tune_epochs of ttc"),
        ("[ttc]\nalign_epochs = 30", "align_epochs = 30; expected 0 to 2"),
        ("[ttc]\nchannels = 'many'", "channels = 'many'"),
        ("[ttc]\nchannels = -1", "channels"),
        ("[", "Invalid initial character"),
    ],
)
def test_a_file_of_settings_that_is_wrong_is_refused(bench, tmp_path, text, reason):
    (tmp_path / "chosen.toml").write_text(text)
    done = bench("--settings", tmp_path / "chosen.toml", methods="norm,ttc")
    assert (done.code, len(done.err.splitlines())) == (1, 1) and reason in done.err
    assert not (tmp_path / "out").exists()


def test_the_results_of_another_split_are_refused(bench, imagined, tmp_path):
    bench()
    before = (tmp_path / "out" / "suite.json").read_text()
    done = bench("--split", "test")
    assert done.code == 1 and "split test; expected val, as the results in" in done.err
    assert (tmp_path / "out" / "suite.json").read_text() == before
    assert json.loads(before)["format"] == 1


def test_old_protocols_and_ours_do_not_share_a_folder(bench, imagined, tmp_path):
    bench("--split", "test")
    done = bench("--split", "test", "--legacy", "imagenet-colours")
    assert done.code == 1 and "legacy imagenet-colours; expected no legacy, as the results in" in done.err


def test_few_shots_and_all_images_do_not_share_a_folder(bench, imagined, tmp_path):
    bench()
    done = bench("--shots", "2")
    assert done.code == 1 and "shots 2; expected no shots, as the results in" in done.err


def test_another_model_of_the_same_name_is_refused(bench, imagined, tmp_path):
    from tests.models import tiny

    name = save_model(tmp_path / "model", tiny("vit", seed=0, num_classes=0))
    bench(model=name)
    save_model(tmp_path / "model", tiny("vit", seed=1, num_classes=0))
    from ttctune.bench.run_job import opened

    opened.cache_clear()
    done = bench(model=name)
    assert done.code == 1 and "backbone digest" in done.err


@pytest.mark.slow
def test_the_whole_command_in_processes_of_its_own(bench, tmp_path, root):
    done = bench("--jobs", "2", "--methods", "ttc", "--trials", "2")
    assert done.code == 0, done
    record = json.loads((tmp_path / "out/ants/ttc/seed0.json").read_text())
    assert record["chosen_by"] == "search on val" and record["trials"] == 2
    assert (tmp_path / "out/search.journal").is_file()
