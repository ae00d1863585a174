"""Checkpoint files: written whole or not at all, damage named, and the newest whole one found."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from c2c_lightning.errors import CheckpointError
from c2c_lightning.training.checkpoint import Checkpoint
from c2c_lightning.training.checkpoint_io import AtomicCheckpointIO, damage_of

IO = AtomicCheckpointIO()


def save(path: Path, step: int, seconds: int = 0) -> Path:
    """A checkpoint that was written some seconds after the epoch."""
    IO.save_checkpoint({"step": step, "weights": torch.arange(3000.0)}, path)
    os.utime(path, (seconds, seconds))
    return path


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "step=1.ckpt", 1)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"step=1\.ckpt is damaged"):
            IO.load_checkpoint(path)


def test_a_flipped_bit_is_named_or_does_no_harm(tmp_path: Path) -> None:
    path = save(tmp_path / "step=1.ckpt", 1)
    whole, expected = path.read_bytes(), IO.load_checkpoint(path)
    named = 0
    for place in range(0, len(whole), 193):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        if damage_of(path):
            named += 1
            continue
        # The archive has bytes that are never read: dates, and zeros between its parts.
        loaded = IO.load_checkpoint(path)
        assert loaded["step"] == expected["step"]
        assert torch.equal(loaded["weights"], expected["weights"])
    assert named > 0.9 * (len(whole) / 193)


def test_a_damaged_last_one_is_replaced_by_the_newest_whole_one(tmp_path: Path) -> None:
    save(tmp_path / "step=1.ckpt", 1, 10)
    save(tmp_path / "step=2.ckpt", 2, 20)
    for name, seconds in (("step=3.ckpt", 30), ("last.ckpt", 40)):
        path = save(tmp_path / name, 3, seconds)
        path.write_bytes(path.read_bytes()[:1000])
        os.utime(path, (seconds, seconds))
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged.*Resuming from .*step=2\.ckpt"):
        assert IO.load_checkpoint(tmp_path / "last.ckpt")["step"] == 2
    # One that was asked for by its own name is not replaced by another.
    with pytest.raises(CheckpointError, match=r"step=3\.ckpt is damaged"):
        IO.load_checkpoint(tmp_path / "step=3.ckpt")


def test_without_a_whole_one_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        IO.load_checkpoint(tmp_path / "last.ckpt")


def test_last_is_the_newest_whole_file_whatever_the_link_says(tmp_path: Path) -> None:
    save(tmp_path / "step=1.ckpt", 1, 10)
    newest = save(tmp_path / "step=2.ckpt", 2, 20)
    (tmp_path / "step=3.ckpt").write_bytes(b"PK cut")
    (tmp_path / "last.ckpt").symlink_to("gone.ckpt")
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    with pytest.warns(UserWarning, match=r"step=3\.ckpt is damaged.*ignored"):
        assert Checkpoint(dirpath=tmp_path, save_last="link")._find_last_checkpoints(trainer) == {str(newest)}


@pytest.mark.parametrize(
    ("problem", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "disk full"), CheckpointError)]
)
def test_an_interrupted_write_leaves_the_old_file(
    problem: BaseException, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "step=1.ckpt", 1)

    def interrupted(content: Any, file: Any) -> None:
        file.write(b"PK, and no more")
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(raised):
            IO.save_checkpoint({"step": 2}, path)
    assert IO.load_checkpoint(path)["step"] == 1
    save(path, 3)
    assert {file.name for file in tmp_path.iterdir()} == {"step=1.ckpt"}
