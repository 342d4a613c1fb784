"""Networks that come with the package, by name."""

import json
import os

import jax
import numpy as np
import pytest

from launch import convert_checkpoint
from w2l_jax import (
  audio,
  checkpoints,
  inference,
  judges,
  lip_syncer,
  released,
  train_expert,
  video,
)
from w2l_jax.evaluation import sync_metrics


@pytest.fixture(scope="module")
def released_folder(tmp_path_factory, expert_run, gan_run):
  """The tests' runs, as "ours" in it."""
  parent = tmp_path_factory.mktemp("released")
  folder = parent / "ours"
  folder.mkdir()
  for network, source, name in (
    ("sync_expert", expert_run[0], "expert"),
    ("generator", gan_run[0], "generator"),
  ):
    convert_checkpoint.convert(
      network, source, str(folder / f"{name}.safetensors"), bfloat16=True
    )
  (folder / "MODEL_CARD.md").write_text("A card.")
  return parent


@pytest.fixture
def ours(released_folder, monkeypatch):
  monkeypatch.setattr(released, "_FOLDER", released_folder)


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


def test_grid_small_is_complete():
  folder = released.folder("grid-small")
  assert sum(os.path.getsize(f) for f in os.scandir(folder)) < 8e6
  with open(os.path.join(folder, "MODEL_CARD.md")) as f:
    card = f.read()
  assert "CC BY 4.0" in card and "cannot do" in card
  for stage in ("expert", "generator"):
    config = checkpoints.load_config("grid-small", stage)
    assert "/" not in json.dumps(config).replace("eval/", "")


def test_grid_small_speaks():
  """What it draws is in sync, for the expert, with what it heard."""
  folder = released.folder("grid-small")
  face, sound = (os.path.join(folder, f) for f in ("face.mp4", "speech.flac"))
  top, bottom, left, right = box = (32, 224, 32, 224)  # The drawn face's.
  syncer = lip_syncer.LipSyncer.from_checkpoint("grid-small")
  frames = list(syncer.frames(face, sound, box=box))
  waveform = video.read_audio(sound)[0][:, 0]
  judge = judges.ExpertJudge(*train_expert.load_frozen("grid-small"))
  mel = audio.log_mel(waveform)

  def similarities(pictures):
    found = judge(pictures, waveform, mel)
    by_shift = sync_metrics.shift_similarities(
      found.lips, found.speech, 10, found.has_speech
    )
    return [np.nanmean(values) for values in by_shift]

  generated = similarities([f[top:bottom, left:right] for f in frames])
  held = similarities([frames[0][top:bottom, left:right]] * len(frames))
  assert np.argmax(generated) == 10  # No shift.
  assert generated[10] > held[10] + 0.2
  assert generated[10] > max(generated[0], generated[-1]) + 0.2
