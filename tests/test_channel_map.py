"""The picture of an adapter whose sites have different widths."""

import numpy as np
import pytest
import torch
from PIL import Image

from ttctune.channel_map import draw

#: What is drawn where a block has no channel.
NOTHING, CHOSEN = (0xDB, 0xE7, 0xF3), (0xD9, 0x5F, 0x02)


def _share(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((picture == colour).all(2).mean())


@pytest.mark.parametrize("widths", [(16, 16), (16, 64)], ids=str)
def test_channels_that_a_block_does_not_have_are_left_empty(tmp_path, widths):
    """A narrow stage beside a wide one is not drawn as a wide one of no importance."""
    importance = {f"{block}.mlp": torch.rand(width) for block, width in enumerate(widths)}
    selection = {name: score.topk(4).indices.sort().values for name, score in importance.items()}
    draw(tmp_path / "map.png", selection, importance, "a model")
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("RGB"))
    assert _share(picture, CHOSEN) > 0.02
    assert (_share(picture, NOTHING) > 0.1) == (widths == (16, 64))
    assert _share(picture, NOTHING) > 0.1 or _share(picture, NOTHING) == 0


def test_the_most_important_channel_of_a_narrow_block_is_as_dark_as_that_of_a_wide_one(tmp_path):
    """Ranks run from 0 to 1 within each block."""
    importance = {"0.mlp": torch.arange(4.0), "1.mlp": torch.arange(64.0)}
    draw(tmp_path / "map.png", {}, importance, "a model")
    picture = np.asarray(Image.open(tmp_path / "map.png").convert("L")).astype(int)
    rows = [picture[int(len(picture) * share)] for share in (0.35, 0.65)]
    columns = [row[(row > 30) & (row < 255)] for row in rows]
    assert abs(columns[0].min() - columns[1].min()) <= 4


def test_a_site_of_which_no_channel_was_chosen_is_drawn_without_marks(tmp_path):
    """A budget for all sites together may leave one of them out, with or without known scores."""
    nothing = torch.tensor([], dtype=torch.int64)
    draw(tmp_path / "map.png", {"0.mlp": nothing, "1.mlp": nothing}, {"0.mlp": torch.rand(16)}, "a model")
    assert _share(np.asarray(Image.open(tmp_path / "map.png").convert("RGB")), CHOSEN) == 0
