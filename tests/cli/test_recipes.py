"""Recipes on the command line: a file, a preset, flags; printed, saved, given again."""

import json
import tomllib

import pytest
from tests.run_helpers import sha, short_flags

from ttctune.recipe import Recipe


@pytest.fixture
def mine(tmp_path):
    """A recipe of one epoch a stage."""
    file = tmp_path / "mine.toml"
    file.write_text('align_epochs = 1\ntune_epochs = 1\nbatch_size = 6\nprecision = "fp32"\nchannels = 3\n')
    return file


def fit(ttctune, tree, model, *more):
    return ttctune("fit", "--data", tree, "--model", model, *more)


def test_a_run_goes_by_the_file_and_by_flags_before_it(ttctune, tree, model, mine, tmp_path):
    done = fit(ttctune, tree, model, "--recipe", mine, "--channels", 5, "-o", tmp_path / "x", "--json", "--quiet")
    want = Recipe(align_epochs=1, tune_epochs=1, batch_size=6, precision="fp32", channels=5)
    assert done.code == 0 and Recipe(**done.json["recipe"]) == want
    assert Recipe.from_toml(tmp_path / "x" / "recipe.toml") == want
    assert want.to_toml() in (tmp_path / "x" / "README.md").read_text()


def test_a_run_by_a_file_ends_with_the_settings_it_went_by(ttctune, tree, model, mine, tmp_path):
    done = fit(ttctune, tree, model, "--recipe", mine, "--channels", 5, "-o", tmp_path / "x")
    want = Recipe(align_epochs=1, tune_epochs=1, batch_size=6, precision="fp32", channels=5)
    assert done.code == 0 and want.to_toml() in done.out
    assert "align_epochs" not in fit(ttctune, tree, model, *short_flags(), "-o", tmp_path / "y").out


def test_the_recipe_that_a_run_saves_repeats_it_in_every_bit(ttctune, fitted, tree, model, tmp_path):
    done = fit(ttctune, tree, model, "--recipe", fitted / "recipe.toml", "-o", tmp_path / "x", "--quiet")
    assert done.code == 0 and sha(tmp_path / "x" / "adapter.safetensors") == sha(fitted / "adapter.safetensors")


def test_a_dry_run_prints_every_setting_as_a_recipe(ttctune, tree, model, mine, tmp_path):
    done = fit(ttctune, tree, model, "--recipe", mine, "--preset", "paper", "--dry-run", "--quiet")
    assert done.code == 0, done.err
    printed = done.out.partition("\n\n")[2]
    again = tmp_path / "again.toml"
    again.write_text(printed)
    assert Recipe.from_toml(again) == Recipe.from_toml(mine, preset="paper")
    assert tomllib.loads(printed)["tune_norms"] == "frozen"
    as_json = fit(ttctune, tree, model, "--recipe", mine, "--dry-run", "--quiet", "--json").json
    assert Recipe(**as_json["recipe"]) == Recipe.from_toml(mine)


def test_an_adapters_record_as_recipe_is_answered_with_the_right_file(ttctune, fitted, tree, model, tmp_path):
    done = fit(ttctune, tree, model, "--recipe", fitted / "adapter.json", "-o", tmp_path / "x")
    assert done.code == 1 and len(done.err.splitlines()) == 1 and "give the recipe.toml" in done.err
    done = fit(ttctune, tree, model, "--recipe", fitted, "-o", tmp_path / "x")
    assert done.code == 1 and f"give {fitted / 'recipe.toml'}" in done.err and not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["batchsize = 3", "batch_size = 0", "batch_size", 'preset = "papers"'])
def test_a_file_that_is_wrong_is_one_line_and_leaves_nothing(ttctune, tree, model, tmp_path, text):
    (tmp_path / "bad.toml").write_text(f"seed = 1\n{text}\n")
    done = fit(ttctune, tree, model, "--recipe", tmp_path / "bad.toml", "-o", tmp_path / "x")
    assert done.code == 1 and done.out == "" and not (tmp_path / "x").exists()
    assert done.err.startswith(f"ttctune: {tmp_path / 'bad.toml'}, line 2") and len(done.err.splitlines()) == 1


def test_a_bad_flag_beside_a_file_is_not_blamed_on_it(ttctune, tree, model, mine):
    done = fit(ttctune, tree, model, "--recipe", mine, "--batch-size", 0)
    assert done.code == 1 and "mine.toml" not in done.err and "--batch-size" in done.err


def test_a_run_without_a_file_saves_its_recipe_too(fitted):
    saved = Recipe.from_toml(fitted / "recipe.toml")
    assert saved == Recipe(**json.loads((fitted / "adapter.json").read_text())["recipe"])
    assert short_flags()[1] == str(saved.align_epochs)
