"""Settings: bounds, near matches, presets, and one flag for each."""

import pytest

from ttctune.cli.main import main
from ttctune.errors import RecipeError
from ttctune.recipe import IMPORTANCES, PRESETS, SITE_KINDS, Recipe, description_of, flag_of

BAD = [
    ("align_epochs", -1),
    ("align_epochs", 1.5),
    ("tune_epochs", -1),
    ("tune_epochs", "many"),
    ("sites", ()),
    ("sites", ""),
    ("sites", "attn,attn"),
    ("sites", "attn,brain"),
    ("channels", 0),
    ("channels", -3),
    ("channels", 2.5),
    ("channels", float("nan")),
    ("channels", float("inf")),
    ("channels", "all"),
    ("budget", 0),
    ("form", "matrix"),
    ("importance", "tailor"),
    ("tokens", "none"),
    ("tune_norms", "yes"),
    ("tune_head", "no"),
    ("learning_rate", 0),
    ("learning_rate", -1e-3),
    ("learning_rate", 11),
    ("learning_rate", float("nan")),
    ("norm_learning_rate", 0),
    ("head_learning_rate", -1),
    ("weight_decay", -0.1),
    ("warmup_epochs", -1),
    ("batch_size", 0),
    ("accumulation", 0),
    ("label_smoothing", 1.0),
    ("label_smoothing", -0.1),
    ("class_weights", "perhaps"),
    ("drop_path", 1.0),
    ("gradient_clip", -1),
    ("image_size", 0),
    ("image_size", (0, 32)),
    ("image_size", 4097),
    ("image_size", (8, 4104)),
    ("image_size", "32x"),
    ("image_size", "32x32x32"),
    ("resize", "stretch"),
    ("randaugment", 31),
    ("val_fraction", 1.0),
    ("val_fraction", -0.1),
    ("cache_mb", 0),
    ("precision", "int8"),
    ("adapter_dtype", "bfloat16"),
    ("seed", -1),
    ("seed", 2**31),
]


@pytest.mark.parametrize(("setting", "value"), BAD, ids=[f"{s}={v}" for s, v in BAD])
def test_a_bad_value_is_one_line_that_names_setting_value_and_flag(setting, value):
    with pytest.raises(RecipeError) as caught:
        Recipe(**{setting: value})
    line = str(caught.value)
    assert setting in line and repr(value) in line and flag_of(setting) in line and "\n" not in line
    assert "pydantic" not in line and "Value error" not in line


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("learning_rat", "learning_rate"), ("batchsize", "batch_size"), ("epochs", "_epochs"), ("site", "sites")],
)
def test_an_unknown_setting_is_answered_with_the_nearest_ones(typo, meant):
    with pytest.raises(RecipeError, match=rf"unknown setting '{typo}'.*did you mean .*{meant}"):
        Recipe(**{typo: 3})


def test_an_unknown_setting_that_resembles_none_points_to_the_help():
    with pytest.raises(RecipeError, match="ttctune fit --help"):
        Recipe(xyzzy=1)


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(Exception, match="frozen"):
        Recipe().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "width", "k"),
    [
        (0.25, 192, 48),
        ("0.25", 192, 48),
        (0.125, 768, 96),
        (96, 768, 96),
        ("96", 768, 96),
        (96.0, 768, 96),
        (1, 32, 1),
        (1e-6, 32, 1),
        (0.999, 32, 32),
    ],
)
def test_channels_are_a_number_or_a_share_of_the_width(given, width, k):
    recipe = Recipe(channels=given)
    assert recipe.channels_of(width) == k and isinstance(recipe.channels_of(width), int)


@pytest.mark.parametrize(
    ("given", "kept"), [(96, 96), ("96", 96), ("96x128", (96, 128)), ((96, 128), (96, 128)), (None, None)]
)
def test_image_size_is_one_number_or_height_by_width(given, kept):
    assert Recipe(image_size=given).image_size == kept


@pytest.mark.parametrize("given", ["attn,mlp", "attn, mlp", ("attn", "mlp"), ["attn", "mlp"]])
def test_sites_are_a_list_or_a_line_with_commas(given):
    assert Recipe(sites=given).sites == ("attn", "mlp")


def test_presets_are_the_strict_reading_and_the_default():
    assert Recipe.preset() == Recipe()
    paper = Recipe.preset("paper")
    assert paper.sites == ("attn",) and paper.tune_norms == "frozen" and paper.channels_of(768) == 96
    assert (paper.align_epochs, paper.tune_epochs) == (10, 10)


def test_changes_win_over_the_preset():
    assert Recipe.preset("paper", align_epochs=3, channels=8).channels_of(768) == 8


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=" or ".join(PRESETS)):
        Recipe.preset("papers")


@pytest.mark.parametrize("setting", [{"form": "rows"}, {"importance": "taylor_weight"}])
def test_the_stream_has_no_weights_to_tune_or_score_by(setting):
    with pytest.raises(RecipeError, match="stream"):
        Recipe(sites=("attn", "stream"), **setting)
    assert Recipe(sites=("attn",), **setting) and Recipe(sites=("stream",))


def test_a_batch_cannot_be_cut_into_more_parts_than_images():
    with pytest.raises(RecipeError, match="accumulation = 5 with batch_size = 4"):
        Recipe(batch_size=4, accumulation=5)
    assert Recipe(batch_size=4, accumulation=4)


def test_a_change_is_checked_like_the_first_values():
    assert Recipe(seed=1).change(batch_size=8) == Recipe(seed=1, batch_size=8)
    with pytest.raises(RecipeError, match="batch_size"):
        Recipe().change(batch_size=0)


def test_rates_of_norms_and_head_follow_that_of_the_maps():
    recipe = Recipe(learning_rate=0.02)
    assert (recipe.norm_rate, recipe.head_rate) == (0.02, 0.01)
    recipe = recipe.change(norm_learning_rate=0.3, head_learning_rate=0.4)
    assert (recipe.norm_rate, recipe.head_rate) == (0.3, 0.4)


def test_a_recipe_survives_the_trip_through_json():
    recipe = Recipe(image_size=(32, 64), sites=("mlp", "qkv"), channels=7, budget=100, seed=5)
    assert Recipe(**recipe.model_dump(mode="json")) == recipe


def test_every_setting_is_described_and_is_a_flag_of_fit(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["fit", "--help"]) == 0
    shown = capsys.readouterr().out.split()
    for name, field in Recipe.model_fields.items():
        assert field.description, name
        assert flag_of(name) in shown, name


@pytest.mark.parametrize("setting", ["flip", "crop", "randaugment"])
def test_each_augmentation_says_which_labels_it_hurts(setting):
    assert "hurts" in description_of(setting)


@pytest.mark.parametrize(
    ("setting", "value"), [("align_epochs", True), ("channels", True), ("seed", False), ("budget", 2**63)]
)
def test_a_switch_or_a_number_without_end_is_no_number(setting, value):
    with pytest.raises(RecipeError, match=setting):
        Recipe(**{setting: value})


@pytest.mark.parametrize("name", ["self", "cls", "name"])
def test_a_setting_called_like_an_argument_is_unknown(name):
    for make in (Recipe, Recipe.preset):
        with pytest.raises(RecipeError, match=f"unknown setting '{name}'"):
            make(**{name: "x"})


def test_the_help_of_fit_names_every_choice(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert all(word in shown for word in (*IMPORTANCES, *SITE_KINDS, *PRESETS))


@pytest.mark.parametrize(("setting", "text"), [("cache_mb", "9" * 20), ("batch_size", "9" * 20), ("channels", "1e19")])
def test_a_number_too_large_for_a_file_is_refused_as_text_too(setting, text):
    with pytest.raises(RecipeError, match="64 bits"):
        Recipe(**{setting: text})
