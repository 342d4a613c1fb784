"""Checkpoints by name, in bfloat16."""

import jax
import numpy as np
import pytest

from launch import convert_checkpoint
from w2l_jax import checkpoints, inference, lip_syncer, released, train_expert


@pytest.fixture
def folder(tmp_path, monkeypatch, expert_run, gan_run):
  """A released checkpoint "ours" of the tests' runs."""
  monkeypatch.setattr(released, "_FOLDER", tmp_path)
  (tmp_path / "ours").mkdir()
  for network, source in (
    ("sync_expert", expert_run[0]),
    ("generator", gan_run[0]),
  ):
    name = network.removeprefix("sync_")
    convert_checkpoint.convert(
      network,
      source,
      str(tmp_path / "ours" / f"{name}.safetensors"),
      dtype=np.dtype("bfloat16"),
    )
  (tmp_path / "ours" / "MODEL_CARD.md").write_text("A card.")
  return tmp_path


def test_both_networks_are_read_by_name(folder, expert_run, gan_run):
  """As float32, each within bfloat16's rounding of what was trained."""
  assert released.names() == ["ours"]
  for load, source in (
    (train_expert.load_frozen, expert_run[0]),
    (inference.load_generator, gan_run[0]),
  ):
    found, config = load("ours")
    trained, _ = load(source)
    assert config["stage"] in ("expert", "generator")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(trained), strict=1):
      assert a.dtype == np.float32
      np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-30)
  syncer = lip_syncer.LipSyncer.from_checkpoint("ours")
  assert syncer.config["stage"] == "generator"


def test_a_folder_of_that_name_comes_first(folder, tmp_path, monkeypatch):
  (tmp_path / "here" / "ours").mkdir(parents=True)
  monkeypatch.chdir(tmp_path / "here")
  assert released.resolve("ours", "generator") == "ours"


def test_another_name_is_a_path(folder):
  with pytest.raises(checkpoints.CheckpointError, match="theirs"):
    inference.load_generator("theirs")


def test_only_safetensors_are_written_in_bfloat16(tmp_path, gan_run):
  with pytest.raises(checkpoints.CheckpointError, match="safetensors"):
    convert_checkpoint.convert(
      "generator",
      gan_run[0],
      str(tmp_path / "x.pth"),
      dtype=np.dtype("bfloat16"),
    )
