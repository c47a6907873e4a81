"""Files of settings: what they set, what is refused by file and line, and the way back."""

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttctune.errors import RecipeError
from ttctune.recipe import IMPORTANCES, SITE_KINDS, Recipe, words_of
from ttctune.settings_file import LARGEST


@pytest.fixture
def written(tmp_path):
    """Write a file of settings; returns its path."""

    def write(content: str | bytes, name: str = "mine.toml"):
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


def line_of(path, **changes) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_toml(path, **changes)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600 and "pydantic" not in line
    return line


def test_a_file_sets_what_it_names_and_leaves_the_rest(written):
    file = written('learning_rate = 0.02\nsites = ["mlp", "qkv"]\nflip = true\nimage_size = [32, 64]\n')
    want = Recipe(learning_rate=0.02, sites=("mlp", "qkv"), flip=True, image_size=(32, 64))
    assert Recipe.from_toml(file) == want and Recipe.from_toml(str(file)) == want


def test_defaults_preset_file_and_changes_win_in_this_order(written):
    file = written('preset = "paper"\nalign_epochs = 3\nseed = 4\n')
    recipe = Recipe.from_toml(file, seed=5)
    assert (recipe.batch_size, recipe.tune_norms, recipe.align_epochs, recipe.seed) == (32, "frozen", 3, 5)


def test_a_preset_given_as_a_change_replaces_that_of_the_file_but_not_its_settings(written):
    file = written('preset = "default"\nalign_epochs = 3\n')
    recipe = Recipe.from_toml(file, preset="paper")
    assert (recipe.align_epochs, recipe.tune_epochs) == (3, 10)


@pytest.mark.parametrize("content", ["", "# nothing\n", "\ufeffseed = 0\n", "seed = 0\r\n"])
def test_an_empty_file_a_byte_order_mark_and_foreign_line_ends_are_read(written, content):
    assert Recipe.from_toml(written(content)) == Recipe()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed = 1\nbatchsize = 8\n", r"mine.toml, line 2: unknown setting 'batchsize'.*did you mean batch_size"),
        ("learning-rate = 1\n", r"line 1: unknown setting 'learning-rate'.*did you mean learning_rate"),
        ('presett = "paper"\n', r"line 1: .*did you mean preset"),
        ("[training]\nseed = 1\n", r"line 1: unknown setting 'training'"),
        ("[[a]]\n", r"line 1: unknown setting 'a'"),
        ("a.b = 1\n", r"line 1: unknown setting 'a'"),
        ('"self" = 1\n', r"line 1: unknown setting 'self'"),
        ("name = 1\n", r"line 1: unknown setting 'name'"),
        ("cls = 1\n", r"line 1: unknown setting 'cls'"),
        ('"" = 1\n', r"line 1: unknown setting ''"),
        ('"seed\\n" = 1\n', r"mine.toml: unknown setting 'seed\\n'.*did you mean seed"),
        ("\n\nalign_epochs = -1\n", r"mine.toml, line 3: align_epochs = -1; expected greater than or equal to 0"),
        ('"seed" = "x"\n', r"line 1: seed = 'x'"),
        ("seed = 1979-05-27\n", r"line 1: seed = "),
        ("seed = true\n", r"line 1: seed = True; expected something else than a switch"),
        ("sites = [[1]]\n", r"line 1: sites = "),
        ("sites = {a = 1}\n", r"line 1: sites = "),
        ("[sites]\na = 1\n", r"line 1: sites = "),
        ("learning_rate = nan\n", r"line 1: learning_rate = nan"),
        ("channels = inf\n", r"line 1: channels = inf"),
        (
            f"budget = 0x{'f' * 6000}\n",
            r"line 1: budget = a number of thousands of digits; expected a number that fits",
        ),
        ('form = "square"\n', r"line 1: form = 'square'"),
        ('preset = "papers"\n', r"line 1: preset 'papers'; expected default or paper"),
        ("preset = []\n", r"line 1: preset \[\]"),
        ("accumulation = 64\n", r"mine.toml: accumulation = 64 with batch_size = 32"),
        ('sites = ["stream"]\nform = "rows"\n', r"mine.toml: form = rows at stream"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_file_and_line(written, content, said):
    assert re.search(said, line_of(written(content)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seed = 1\nseed\n", "line 2, column"),
        ("seed = \n", "line 1, column"),
        ("seed = 1\nseed = 2\n", "line 2, column"),
        ('form = "map', "end of document"),
        ("seed = " + "9" * 5000, "digits"),
        ("seed = " + "[" * 20_000, "mine.toml"),
        (b"seed = 1\n# \xff\xfe\n", "line 2: not UTF-8"),
        ("s" * (LARGEST + 1), f"over {LARGEST} bytes"),
        ('{"ttctune_format": 1}', "is JSON; expected a TOML file of settings; give the recipe.toml that lies beside"),
    ],
)
def test_what_is_no_toml_is_refused_with_file_place_and_reason(written, content, said):
    line = line_of(written(content))
    assert said in line and "mine.toml" in line


def test_an_adapters_own_record_is_answered_with_the_file_to_give(written):
    assert "recipe.toml" in line_of(written("[1, 2]", "adapter.json"))


@pytest.mark.parametrize("path", ["nowhere.toml", "a\0b", "x" * 300])
def test_a_file_that_is_not_there_is_refused(tmp_path, path):
    assert "recipe" in line_of(tmp_path / path)


def test_a_folder_is_refused_with_the_recipe_in_it(tmp_path):
    assert "a folder" in line_of(tmp_path)
    (tmp_path / "recipe.toml").write_text("")
    assert f"give {tmp_path / 'recipe.toml'}" in line_of(tmp_path)


def test_a_device_without_end_is_refused():
    assert "over" in line_of("/dev/zero")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_refused(written):
    file = written("seed = 1\n")
    file.chmod(0)
    assert "permission denied" in line_of(file)


def test_a_bad_change_is_not_blamed_on_the_file(written):
    file = written("batch_size = 8\n")
    assert "mine.toml" not in line_of(file, batch_size=0)
    assert "mine.toml" not in line_of(file, accumulation=9)
    assert "mine.toml" not in line_of(file, preset="papers")


def test_a_change_replaces_a_bad_value_of_the_file(written):
    assert Recipe.from_toml(written("batch_size = 0\n"), batch_size=8).batch_size == 8


def test_every_setting_is_written_with_what_it_is_and_unset_ones_are_left_out():
    lines = Recipe(image_size=96).to_toml().splitlines()
    unset = {"budget", "norm_learning_rate", "head_learning_rate"}
    assert {line.partition(" = ")[0] for line in lines} == Recipe.model_fields.keys() - unset
    assert all(re.fullmatch(r"[a-z_]+ = \S.*  # \S.*", line) for line in lines)


def test_what_is_left_out_reads_back_as_none():
    for name, field in Recipe.model_fields.items():
        assert field.default is None or "None" not in str(field.annotation), name


def number(low, high, **more):
    return st.floats(low, high, allow_nan=False, **more)


RATES = number(0, 10, exclude_min=True)
VALUES = {
    "align_epochs": st.integers(0, 2**62),
    "tune_epochs": st.integers(0, 2**62),
    "sites": st.lists(st.sampled_from(SITE_KINDS[:4]), min_size=1, unique=True).map(tuple),
    "channels": st.integers(1, 2**62) | number(0, 1, exclude_min=True, exclude_max=True),
    "budget": st.none() | st.integers(1, 2**62),
    "gates": st.lists(st.sampled_from(SITE_KINDS[:4]), unique=True).map(tuple),
    "form": st.sampled_from(words_of("form")),
    "importance": st.sampled_from(IMPORTANCES),
    "tokens": st.sampled_from(words_of("tokens")),
    "tune_norms": st.sampled_from(words_of("tune_norms")),
    "tune_head": st.sampled_from(words_of("tune_head")),
    "learning_rate": RATES,
    "norm_learning_rate": st.none() | RATES,
    "head_learning_rate": st.none() | RATES,
    "weight_decay": number(0, 10),
    "warmup_epochs": number(0, 1e300),
    "batch_size": st.integers(64, 2**62),
    "accumulation": st.integers(1, 32),
    "label_smoothing": number(0, 1, exclude_max=True),
    "class_weights": st.booleans(),
    "drop_path": number(0, 1, exclude_max=True),
    "gradient_clip": number(0, 1e300),
    "image_size": st.none() | st.integers(1, 4096) | st.tuples(st.integers(1, 999), st.integers(1, 999)),
    "resize": st.sampled_from(words_of("resize")),
    "flip": st.booleans(),
    "crop": st.booleans(),
    "randaugment": st.integers(0, 30),
    "val_fraction": number(0, 1, exclude_max=True),
    "skip_bad": st.booleans(),
    "streaming": st.booleans(),
    "cache_mb": st.integers(1, 2**62),
    "precision": st.sampled_from(words_of("precision")),
    "compile": st.booleans(),
    "adapter_dtype": st.sampled_from(words_of("adapter_dtype")),
    "seed": st.integers(0, 2**31 - 1),
}


def test_the_values_below_cover_every_setting():
    assert VALUES.keys() == Recipe.model_fields.keys()


@settings(max_examples=50, deadline=None)
@given(values=st.fixed_dictionaries({}, optional=VALUES))
def test_a_recipe_survives_the_trip_through_toml_exactly(tmp_path_factory, values):
    recipe = Recipe(**values)
    file = tmp_path_factory.getbasetemp() / "trip.toml"
    file.write_text(recipe.to_toml())
    again = Recipe.from_toml(file)
    assert again == recipe and again.to_toml() == recipe.to_toml()


NAMES = st.sampled_from([*Recipe.model_fields, "preset", "self", "cls", "name"]) | st.text(max_size=8)
SCALARS = st.one_of(
    st.booleans().map(lambda b: str(b).lower()),
    st.integers(-(10**25), 10**25).map(str),
    st.floats().map(lambda f: repr(f).removeprefix("+")),
    st.sampled_from(
        ['"map"', '"attn,mlp"', '"32x32"', '"paper"', "1979-05-27", "07:32:00", "{a = 1}", "0xffffffffffffff"]
    ),
)
TOML = st.lists(
    st.tuples(NAMES, SCALARS | st.lists(SCALARS, max_size=3).map(lambda v: f"[{', '.join(v)}]")), max_size=4
).map(lambda pairs: "\n".join(f"{name} = {value}" for name, value in pairs).encode("utf-8", "surrogatepass"))


@settings(max_examples=120, deadline=None)
@given(content=TOML | st.binary(max_size=60))
def test_any_bytes_are_a_recipe_or_one_line(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    try:
        recipe = Recipe.from_toml(file)
    except RecipeError as error:
        assert "any.toml" in str(error) and "\n" not in str(error)
    else:
        assert Recipe.from_toml(file) == recipe
