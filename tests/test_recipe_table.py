"""The page on recipes."""

import re
from pathlib import Path

from ttctune.recipe import Recipe
from ttctune.recipe_table import page

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"


def test_the_page_in_the_documentation_is_what_the_code_makes():
    assert PAGE.read_text() == page(), "run: python -m ttctune.recipe_table > docs/recipe.md"


def test_every_setting_has_a_row():
    assert re.findall(r"^\| `(\w+)` \|", page(), re.M) == list(Recipe.model_fields)


def test_the_example_on_the_page_is_a_recipe(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", page(), re.S)
    (tmp_path / "mine.toml").write_text(example)
    recipe = Recipe.from_toml(tmp_path / "mine.toml")
    assert (recipe.tune_norms, recipe.learning_rate, recipe.sites) == ("frozen", 0.02, ("attn", "mlp"))
