"""Faces and speech from files and arrays, prolonged, edited, streamed."""

import numpy as np
import pytest
import soundfile
from conftest import babble, write_video

from w2l_jax import audio, sources


def clip(count):
  """[count, 16, 16, 3] frames that are their numbers."""
  array = np.arange(count, dtype=np.uint8)[:, None, None, None]
  return np.ascontiguousarray(np.broadcast_to(array, (count, 16, 16, 3)))


@pytest.mark.parametrize("loop", ["restart", "ping_pong", "freeze", "stop"])
@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 66, 150])
def test_videos_are_prolonged(count, loop):
  order = list(range(count))
  if loop == "ping_pong":
    order += order[-2:0:-1]
  expected = (order * 4)[: 3 * count + 1]
  if loop == "freeze":
    expected = [*order, *[count - 1] * 9]
  if loop == "stop":
    expected = order
  pictures = sources.open_pictures(clip(count))
  looped = sources.looped(pictures, count, loop)
  if pictures.still:  # A photo has any length.
    expected, loop = [0] * 9, "restart"
  found = [next(looped) for _ in expected]
  assert [(i, int(f[0, 0, 0])) for i, f in found] == [(i, i) for i in expected]
  if loop == "stop":
    assert next(looped, None) is None


def test_a_file_plays_backwards(tmp_path, monkeypatch):
  """Part by part, from key frames: the same frames as forwards."""
  monkeypatch.setattr(sources, "_BACKWARDS_BYTES", 7 * 64 * 64 * 3)
  rng = np.random.default_rng(0)
  frames = [
    np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3)), 16, 0), 16, 1)
    for _ in range(40)
  ]
  path = str(tmp_path / "a.mp4")
  write_video(path, [f.astype(np.uint8) for f in frames])
  pictures = sources.open_pictures(path)
  forwards = list(pictures.frames(0))
  looped = sources.looped(pictures, len(forwards), "ping_pong")
  for i in [*range(40), *range(38, 0, -1), *range(40)]:
    number, frame = next(looped)
    assert number == i
    np.testing.assert_array_equal(frame, forwards[i])


def test_bad_arrays():
  for array in (
    np.zeros((9, 9)),
    np.zeros((0, 9, 9, 3), np.uint8),
    np.zeros((2, 9, 9, 3), np.float32),
  ):
    with pytest.raises(sources.InferenceError, match="the face"):
      sources.open_pictures(array)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_speech_is_the_arrays(tmp_path, rate, channels):
  """Its mel, however it comes, is log_mel's of the whole."""
  waveform = np.stack([babble(2.3, i, rate) for i in range(channels)], 1)
  path = str(tmp_path / "a.wav")
  soundfile.write(path, waveform, rate, subtype="FLOAT")
  expected = audio.log_mel(waveform, rate)
  for given in (path, (waveform, rate)):
    speech = sources.open_speech(given, "reflect")
    np.testing.assert_allclose(speech.mel, expected, atol=1e-5)
    assert abs(speech.seconds - 2.3) < 1e-3 and not speech.silent
    blocks = np.concatenate(list(speech.blocks()))
    np.testing.assert_allclose(blocks, waveform, atol=1e-6)
  whole = (waveform * 32767).astype(np.int16)
  speech = sources.open_speech((whole, rate), "reflect")
  assert np.abs(speech.mel - expected).mean() < 0.01


def test_silence_is_told():
  assert sources.open_speech((np.zeros(8000), 16_000), "reflect").silent


@pytest.mark.parametrize("pause", [0, 16, 30, 80])
def test_quiet_columns(pause):
  """Pauses of 0.3 s and more; the mean is over 17 columns."""
  mel = np.zeros((240, 80), np.float32)
  start = 100
  mel[start : start + pause] = -4
  quiet = sources.quiet_columns(mel, -2.5)
  expected = np.zeros(240, bool)
  for i in range(240):
    around = mel[np.clip(np.arange(i - 8, i + 9), 0, 239)].mean()
    expected[i] = around <= -2.5
  if expected.sum() < 24:
    expected[:] = False
  np.testing.assert_array_equal(quiet, expected)
  assert quiet.any() == (pause >= 30)


def test_transposed_sound():
  with pytest.raises(sources.InferenceError, match="16000 channels.*transpos"):
    sources.open_speech((np.zeros((2, 16_000), np.float32), 16_000), "reflect")
