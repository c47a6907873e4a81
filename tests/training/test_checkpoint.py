"""The state of an unfinished run: exact, whole, or a clear error."""

import json
import os

import pytest
import torch

from ttctune.errors import FolderError
from ttctune.training.checkpoint import STATE, Checkpoint


def state(epoch: int = 2) -> Checkpoint:
    generator = torch.Generator().manual_seed(epoch)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator)

    return Checkpoint(
        stage="tune",
        epoch=epoch,
        adapter={"sites.0.attn.map": drawn(3, 3), "sites.0.attn.channels": torch.tensor([1, 5, 9]), "a:b": drawn(2)},
        optimizer={"head.weight/step": torch.tensor(7.0), "head.weight/exp_avg": drawn(2, 2)},
        importance={"0.attn": drawn(8).double()},
        history=[{"stage": "align", "epoch": 1, "loss": 0.1 + 0.2, "learning_rates": {"head": 1e-3}}],
        settled={"precision": "bf16", "accumulation": 2},
    )


def test_what_was_written_is_read_back_bit_for_bit(tmp_path):
    before = state()
    before.write(tmp_path)
    after = Checkpoint.read(tmp_path)
    assert (after.stage, after.epoch, after.history, after.settled) == ("tune", 2, before.history, before.settled)
    for part in ("adapter", "optimizer", "importance"):
        old, new = getattr(before, part), getattr(after, part)
        assert old.keys() == new.keys()
        assert all(old[k].dtype == new[k].dtype and torch.equal(old[k], new[k]) for k in old)


def test_a_folder_without_a_checkpoint_is_the_start_of_a_run(tmp_path):
    assert Checkpoint.read(tmp_path) == Checkpoint()


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_checkpoint_before_it(tmp_path, monkeypatch, step):
    state(1).write(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(FolderError, match="no space left"):
        patch.setattr(os, step, full)
        state(2).write(tmp_path)
    assert Checkpoint.read(tmp_path).epoch == 1
    assert [p.name for p in tmp_path.iterdir()] == [STATE]


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "rubbish", "no state", "foreign part", "extra key", "wrong type", "no stage", "deep"]
)
def test_a_damaged_checkpoint_is_a_folder_error_with_advice(tmp_path, damage):
    from safetensors.torch import save_file

    state().write(tmp_path)
    file = tmp_path / STATE
    content = file.read_bytes()
    tensors = {"adapter:x": torch.zeros(1)}
    match damage:
        case "cut":
            file.write_bytes(content[:-20])
        case "empty":
            file.write_bytes(b"")
        case "rubbish":
            file.write_bytes(os.urandom(300))
        case "no state":
            save_file(tensors, file)
        case "foreign part":
            save_file({"brain:x": torch.zeros(1)}, file, metadata={"state": "{}"})
        case "extra key":
            save_file(tensors, file, metadata={"state": '{"stage": "tune", "tune": 1}'})
        case "no stage":
            unknown = {"stage": "x", "epoch": 1, "history": [], "settled": {}}
            save_file(tensors, file, metadata={"state": json.dumps(unknown)})
        case "deep":
            save_file(tensors, file, metadata={"state": "[" * 100_000})
        case "wrong type":
            save_file(tensors, file, metadata={"state": '{"stage": 3, "epoch": "two", "settled": []}'})
    with pytest.raises(FolderError, match=r"damaged.*--overwrite"):
        Checkpoint.read(tmp_path)
