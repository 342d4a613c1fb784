"""Networks that come with the package, by name."""

import jax
import numpy as np
import pytest

from launch import convert_checkpoint
from w2l_jax import checkpoints, inference, lip_syncer, released, train_expert


@pytest.fixture
def ours(tmp_path, monkeypatch, expert_run, gan_run):
  """The tests' runs, released as "ours"."""
  monkeypatch.setattr(released, "_FOLDER", tmp_path)
  folder = tmp_path / "ours"
  folder.mkdir()
  for network, source, name in (
    ("sync_expert", expert_run[0], "expert"),
    ("generator", gan_run[0], "generator"),
  ):
    convert_checkpoint.convert(
      network, source, str(folder / f"{name}.safetensors"), bfloat16=True
    )
  (folder / "MODEL_CARD.md").write_text("A card.")
  return folder


def test_networks_are_read_by_name(ours, expert_run, gan_run):
  """As float32, each within bfloat16's rounding of what was trained."""
  assert released.names() == ["ours"]
  for load, source in (
    (train_expert.load_frozen, expert_run[0]),
    (inference.load_generator, gan_run[0]),
  ):
    found, _ = load("ours")
    trained, _ = load(source)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(trained), strict=1):
      assert a.dtype == np.float32
      np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-30)
  assert lip_syncer.LipSyncer.from_checkpoint("ours").config["width"] == 1 / 32
  assert checkpoints.step_of("ours") is None


def test_what_lies_there_comes_first(ours, tmp_path, monkeypatch):
  (tmp_path / "here" / "ours").mkdir(parents=True)
  monkeypatch.chdir(tmp_path / "here")
  with pytest.raises(checkpoints.CheckpointError, match="holds no checkpoint"):
    inference.load_generator("ours")


def test_another_name_is_told_which_there_are(ours):
  with pytest.raises(
    checkpoints.CheckpointError, match="theirs: no such checkpoint.*: ours"
  ):
    inference.load_generator("theirs")


def test_a_workdir_is_asked_for_where_one_is_needed(ours):
  with pytest.raises(checkpoints.CheckpointError, match="ours: weights alone"):
    checkpoints.describe("ours")


def test_a_network_that_did_not_come(ours):
  with pytest.raises(
    checkpoints.CheckpointError, match="ours: comes without the discriminator"
  ):
    checkpoints.load_adam("ours", "discriminator", {})
