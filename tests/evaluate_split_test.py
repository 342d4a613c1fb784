"""The protocol on a prepared set, with networks that have learnt nothing."""

import jax
import numpy as np
import pytest
from conftest import CLIP_SECONDS, FACE_SIZE

from configs import expert_grid, gan_grid
from w2l_jax import (
  checkpoints,
  dataset,
  evaluate_split,
  inference,
  judges,
  train_expert,
)
from w2l_jax.evaluate_pictures import PictureMeasures
from w2l_jax.evaluate_sync import Protocol
from w2l_jax.pairs import Pair

NAMES = [f"someone/clip{i}" for i in range(4)]
VARIANTS = {"generated", "reconstructed", "real", "copied", "unsynced"}


@pytest.fixture(scope="module")
def split(data_dir):
  return dataset.Split(dataset.builder_dir(data_dir, FACE_SIZE), "train")


def untrained(module, get_config):
  config = checkpoints.to_plain(get_config("tiny"))
  inputs = (np.zeros(x.shape, x.dtype) for x in module.model_inputs(config))
  variables = jax.jit(module.make_model(config).init)(
    jax.random.key(0), *inputs
  )
  return variables, config


@pytest.fixture(scope="module")
def judge():
  return judges.ExpertJudge(*untrained(train_expert, expert_grid.get_config))


@pytest.fixture(scope="module")
def generator():
  variables, config = untrained(inference, gan_grid.get_config)
  return inference.FaceGenerator(config), variables, config


def test_expert(split, judge):
  names = [*NAMES, "someone/else"]
  # 1.2 s are 30 frames, fewer than 32: two of the four clips.
  found = evaluate_split.evaluate_expert(
    split, names, [judge], Protocol(min_frames=32)
  )
  assert [r["names"]["clip"] for r in found.rows] == NAMES[1:3]
  assert [f["clip"] for f in found.failures] == [
    "someone/clip0", "someone/clip3", "someone/else"
  ]  # fmt: skip
  assert "has 30 frames, fewer than 32" in found.failures[0]["reason"]
  assert (
    "no clip of that name in the split 'train'" in (found.failures[2]["reason"])
  )
  summary = found.summary()
  assert summary["expert_lse_d"]["real"]["clips"] == 2
  assert set(found.shift_tests["expert"]["lse_c"]) >= {"0", "10", "shuffled"}
  assert 0 <= found.rocs["expert"]["area"] <= 1


def test_generator(split, judge, generator):
  shown = []
  pairs = [
    Pair(NAMES[0], NAMES[1]),
    Pair("someone/else", NAMES[0]),
    Pair(NAMES[2], NAMES[1]),
  ]
  found = evaluate_split.evaluate_generator(
    split,
    pairs,
    *generator,
    [judge],
    PictureMeasures(None, None),
    Protocol(shown=1),
    lambda name, columns, waveform: shown.append((name, columns, waveform)),
  )
  assert [r["names"] for r in found.rows] == [
    {"face": p.face, "speech": p.speech} for p in (pairs[0], pairs[2])
  ]
  (failure,) = found.failures
  assert failure["clip"] == f"someone/else says {NAMES[0]}"
  summary = found.summary()
  # Baselines stand in the table whatever is measured.
  for measure in ("expert_similarity", "expert_lse_d", "lower_jitter"):
    assert set(summary[measure]) == VARIANTS
  assert set(summary["lower_psnr"]) == {"reconstructed", "copied"}
  assert set(summary["mouth_correlation"]) == VARIANTS - {"real"}
  assert set(summary["frechet_of_expert_features"]) == VARIANTS - {"real"}
  assert {"lpips", "fid"} <= set(found.not_measured)
  # The real clip of both pairs is the same: the same row, tested once.
  first, second = (r["figures"]["expert_lse_d", "real"] for r in found.rows)
  assert first == second
  assert "shuffled" not in found.shift_tests["expert"]["lse_d"]
  # What is shown is what was scored, as long as the speech.
  ((name, columns, waveform),) = shown
  assert name == f"{NAMES[0]} says {NAMES[1]}"
  assert list(columns) == ["real", "generated", "reconstructed", "unsynced"]
  frames = round(25 * CLIP_SECONDS[1])
  assert {len(c) for c in columns.values()} == {frames}
  assert len(waveform) == pytest.approx(640 * frames, abs=640)


def test_reconstruction_sees_but_the_first_mouth(split, judge, generator):
  """However the config has it: a frame's own mouth would be the answer."""
  face_generator, variables, config = generator
  assert config["inference"]["reference"] == "own"
  references = []

  def spy(variables, frames, mels, reference=None):
    references.append(reference)
    return face_generator(variables, frames, mels, reference)

  evaluate_split.evaluate_generator(
    split,
    [Pair(NAMES[0], NAMES[1])],
    spy,
    variables,
    config,
    [judge],
    PictureMeasures(None, None),
    Protocol(shown=0),
    None,
  )
  assert references[0] is None
  number = list(map(dataset.text, split.index.ids)).index(NAMES[1])
  first = dataset.decode_frames(split[number], slice(0, 1))[0]
  np.testing.assert_array_equal(references[1], first)
