"""MFCCs against python_speech_features, and against their own definition."""

import numpy as np
import pytest

from w2l_jax.evaluation import mfcc


def noise(samples: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return (0.1 * rng.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [100, 400, 401, 560, 561, 16_000, 48_128])
def test_against_python_speech_features(samples):
  reference = pytest.importorskip("python_speech_features")
  waveform = noise(samples)
  pcm = np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)
  expected = reference.mfcc(pcm, mfcc.SAMPLE_RATE)
  got = mfcc.mfcc(waveform)
  assert got.shape == expected.shape == (mfcc.num_columns(samples), 13)
  assert np.abs(got - expected).max() <= 1e-4


@pytest.mark.parametrize(
  "waveform",
  [np.zeros(2000), np.full(2000, 2.0), np.sin(np.arange(5000) / 3)],
  ids=["silence", "too loud", "tone"],
)
def test_extremes_against_python_speech_features(waveform):
  reference = pytest.importorskip("python_speech_features")
  waveform = waveform.astype(np.float32)
  pcm = np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)
  expected = reference.mfcc(pcm, mfcc.SAMPLE_RATE)
  got = mfcc.mfcc(waveform)
  assert np.isfinite(got).all()
  assert np.abs(got - expected).max() <= 1e-4


def test_energy_and_number_of_columns():
  """What needs no other library: c0 is the frame's log energy."""
  waveform = noise(16_000, seed=1)
  pcm = np.clip(np.rint(waveform * 32768.0), -32768, 32767)
  emphasised = np.append(pcm[0], pcm[1:] - 0.97 * pcm[:-1])
  got = mfcc.mfcc(waveform)
  # A second is 99 whole windows of 25 ms, begun every 10 ms.
  assert got.shape == (99, 13)
  for column in (0, 50, 97):
    frame = emphasised[160 * column : 160 * column + 400]
    spectrum = np.abs(np.fft.rfft(frame, 512)) ** 2 / 512
    assert got[column, 0] == pytest.approx(np.log(spectrum.sum()), abs=1e-4)
