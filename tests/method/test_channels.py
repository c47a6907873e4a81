"""The trained tensors of each form: their names and formats."""

import pytest
import torch
from torch import nn

from ttctune.method.channels import FORMS, ChannelMap, ChannelRows

CHANNELS = torch.tensor([1, 3, 4])


def _tuning(form: str, has_bias: bool = True) -> nn.Module:
    return FORMS[form](CHANNELS, torch.zeros(7, 5), has_bias)


@pytest.mark.parametrize("form", ["map", "rows"])
def test_a_form_keeps_its_channels_as_integers(form):
    """`.half()` and `.double()` change what is trained and leave the channels int64, in the state too."""
    tuning = _tuning(form)
    for convert in (nn.Module.half, nn.Module.double):
        state = convert(tuning).state_dict()
        assert torch.int64 == state["channels"].dtype
        assert CHANNELS.tolist() == state["channels"].tolist()


def test_the_forms_by_name():
    assert {"map": ChannelMap, "rows": ChannelRows} == FORMS


def test_the_names_of_what_is_trained():
    """As in the adapter's file; without a bias in the layer there is none in the form."""
    assert ["map", "bias", "channels"] == list(_tuning("map").state_dict())
    assert ["rows", "bias", "channels"] == list(_tuning("rows").state_dict())
    assert ["map", "channels"] == list(_tuning("map", has_bias=False).state_dict())
    assert ["rows", "channels"] == list(_tuning("rows", has_bias=False).state_dict())
