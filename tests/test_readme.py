"""Every command of the README, as a newcomer would type it, on generated images and a tiny random model."""

import re
import shlex
import sys
from pathlib import Path

import pytest

import ttctune.torchvision_operators  # noqa: F401  (before timm)

import timm  # isort: skip
import timm.models  # isort: skip
from timm.models.vision_transformer import VisionTransformer

from images.pictures import write_image_tree
from ttctune.cli.main import main

README = Path(__file__).parents[1] / "README.md"
MODEL = "vit_tiny_patch16_224.augreg_in21k"
#: Makes the environment that these tests run in.
SETUP = ("make ", "source ")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def newcomer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with images and a tiny model in it, as the present folder."""
    monkeypatch.chdir(tmp_path)
    write_image_tree(tmp_path / "flowers", classes=["rose", "tulip", "daisy"], per_class=6)
    next((tmp_path / "flowers" / "rose").iterdir()).rename(tmp_path / "flowers" / "rose" / "1.jpg")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2)
    assert isinstance(model, VisionTransformer)
    timm.models.save_for_hf(model, str(tmp_path / "tiny"), safe_serialization=True)
    return tmp_path


def test_every_shell_command_of_the_readme_works(newcomer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Typed one after the other in an empty folder, each ends with exit code 0."""
    lines = [line.partition(" #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    commands = [line for line in lines if line and not line.startswith(SETUP)]
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command.replace(MODEL, "local-dir:tiny"))
        assert words[0] == "ttctune"
        code = main(words[1:])
        assert code == 0, (command, capsys.readouterr().err)
    assert (newcomer / "channels.png").stat().st_size > 1000
    assert timm.create_model("local-dir:merged", pretrained=True).num_classes == 3


def test_the_python_of_the_readme_runs(newcomer: Path) -> None:
    """Pasted into a file, it runs from top to bottom."""
    (code,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(code.replace(MODEL, "local-dir:tiny"), "README.md", "exec"), names)
    assert names["probabilities"].shape == (1, 3)  # type: ignore[attr-defined]
    assert sys.modules["ttctune"] is names["ttctune"]
