"""Judges against their networks, window by window."""

import jax
import numpy as np
import pytest
from conftest import babble

from configs import expert_grid
from w2l_jax import audio, checkpoints, judges, metric_weights, train_expert
from w2l_jax.evaluation import mfcc
from w2l_jax.models import syncnet

WIDTH = 1 / 32
SYNCNET = "tests/parity/data/syncnet.model"


@pytest.fixture(scope="module")
def expert():
  """(variables, config) of an expert that has learnt nothing."""
  config = checkpoints.to_plain(expert_grid.get_config("tiny"))
  variables = jax.jit(train_expert.make_model(config).init)(
    jax.random.key(0),
    *(np.zeros(x.shape, x.dtype) for x in train_expert.model_inputs(config)),
  )
  return variables, config


def clip(frames: int = 45, size: int = 24, seed: int = 0):
  """(pictures, waveform, mel): 45 frames are more than one batch."""
  rng = np.random.default_rng(seed)
  pictures = rng.integers(0, 256, (frames, size, size, 3)).astype(np.uint8)
  waveform = babble(frames / 25, seed)
  return pictures, waveform, audio.log_mel(waveform)


def test_expert(expert):
  variables, config = expert
  pictures, waveform, mel = clip()
  found = judges.ExpertJudge(variables, config)(pictures, waveform, mel)
  # 45 frames, the last window at 40; 145 columns, the last one at 129.
  assert len(found) == len(found.speech) == len(found.has_speech) == 41
  model = train_expert.make_model(config)
  for v in (0, 17, 31, 32, 40):
    batch = {"mel": mel[None, 16 * v // 5 : 16 * v // 5 + 16]}
    speech, lips = train_expert.embed(
      model.apply, config, variables, batch, pictures[None, v : v + 5]
    )
    np.testing.assert_allclose(found.lips[v], lips[0], atol=1e-6)
    np.testing.assert_allclose(found.speech[v], speech[0], atol=1e-6)


def test_pictures_of_another_size(expert):
  """They are resized, as preparation does it; any iterable will do."""
  pictures, waveform, mel = clip(10)
  judge = judges.ExpertJudge(*expert)
  large = pictures.repeat(2, 1).repeat(2, 2)
  np.testing.assert_allclose(
    judge(iter(large), waveform, mel).lips,
    judge(pictures, waveform, mel).lips,
    atol=0.02,
  )


def test_the_shorter_of_sound_and_pictures_counts(expert):
  pictures, waveform, _ = clip(30)
  judge = judges.ExpertJudge(*expert)
  half = waveform[: len(waveform) // 2]
  assert len(judge(pictures, half, audio.log_mel(half))) == 11
  assert len(judge(pictures[:12], waveform, audio.log_mel(waveform))) == 8


def test_no_window(expert):
  pictures, waveform, mel = clip(30)
  judge = judges.ExpertJudge(*expert)
  with pytest.raises(ValueError, match="4 frames and 1.20 s of sound"):
    judge(pictures[:4], waveform, mel)
  short = waveform[:2000]
  with pytest.raises(ValueError, match="30 frames and 0.12 s of sound"):
    judge(pictures, short, audio.log_mel(short))


def test_has_speech():
  mel = np.full((160, 80), audio.SILENCE, np.float32)
  mel[80:120] = 0  # From 1.0 to 1.5 s: frames 25 to 37.
  found = judges.has_speech(mel, 46, -2.5, 16)
  for v in range(46):
    mean = mel[16 * v // 5 : 16 * v // 5 + 16].mean()
    assert found[v] == (mean > -2.5)
  assert found.sum() > 10
  # Windows past the mel's end are silent there.
  assert len(judges.has_speech(mel[:100], 46, -2.5, 16)) == 46


def test_syncnet_counts_windows():
  variables = metric_weights.load_syncnet(SYNCNET, WIDTH)
  ours = judges.SyncNetJudge(variables, -2.5, width=WIDTH)
  theirs = judges.SyncNetJudge(variables, -2.5, faithful=True, width=WIDTH)
  for pictures in (0, 4, 5, 6, 20, 75):
    for samples in (0, 640 * 5, 640 * 20, 640 * 20 + 300, 48_128):
      n = min(pictures, samples // 640)
      assert theirs.num_windows(pictures, samples) == max(0, n - 5)
      columns = mfcc.num_columns(samples)
      whole = [v for v in range(pictures - 4) if 4 * v + 20 <= columns]
      assert ours.num_windows(pictures, samples) == len(whole)


def test_syncnet():
  variables = metric_weights.load_syncnet(SYNCNET, WIDTH)
  judge = judges.SyncNetJudge(variables, -2.5, width=WIDTH)
  pictures, waveform, mel = clip(12, size=224)
  found = judge(pictures, waveform, mel)
  assert len(found) == 7  # 47 columns: the seventh window is 24 to 44.
  model, columns = syncnet.SyncNet(WIDTH), mfcc.mfcc(waveform)
  for v in (0, 6):
    lips, speech = model.apply(
      variables,
      pictures[None, v : v + 5].astype(np.float32),
      columns[None, 4 * v : 4 * v + 20],
    )
    np.testing.assert_allclose(found.lips[v], lips[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.speech[v], speech[0], rtol=1e-4, atol=1e-5)
  # The published count has one window less, but the same features.
  faithful = judges.SyncNetJudge(variables, -2.5, faithful=True, width=WIDTH)
  np.testing.assert_allclose(
    faithful(pictures, waveform, mel).lips[:7], found.lips, atol=1e-5
  )
