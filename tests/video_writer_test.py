"""Writing: lossless, streamed sound, colours, tags, and what is refused.

That files come back as written, in time, is in video_test.py.
"""

import os

import av
import numpy as np
import pytest
from conftest import babble

from w2l_jax import video, video_writer


def noise(count, height=48, width=64):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_lossless(tmp_path, suffix, size):
  """Noise comes back, bit for bit, at odd sizes too."""
  path = str(tmp_path / f"a{suffix}")
  frames = noise(5, *size)
  with video_writer.VideoWriter(path, 25, lossless=True) as writer:
    for frame in frames:
      writer.write(frame)
  np.testing.assert_array_equal(
    np.stack(list(video.frames_at_rate(path, 25))), frames
  )


@pytest.mark.parametrize("rate", [16_000, 12_345, 48_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_sound_in_blocks_is_sound_in_one(tmp_path, rate, channels):
  waveform = np.stack([babble(1.0, c, rate) for c in range(channels)], axis=1)
  found = []
  for name, sound in (
    ("whole.mp4", waveform),
    ("blocks.mp4", iter(np.array_split(waveform, 37))),
  ):
    path = str(tmp_path / name)
    with video_writer.VideoWriter(path, 25, sound, rate) as writer:
      for frame in noise(25):
        writer.write(frame)
    found.append(video.read_audio(path))
  assert found[0][1] == found[1][1]
  np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-3)
  assert found[0][0].shape[1] == (2 if channels == 2 else 1)


def test_blocks_are_taken_as_frames_come(tmp_path):
  """A second of frames takes hardly more than a second of sound."""
  taken = []

  def blocks():
    for i in range(100):
      taken.append(i)
      yield np.zeros((1600, 1), np.float32)

  path = str(tmp_path / "a.mp4")
  with video_writer.VideoWriter(path, 25, blocks(), 16_000) as writer:
    for frame in noise(25):
      writer.write(frame)
  assert 10 <= len(taken) <= 12


def test_no_blocks_are_no_sound(tmp_path):
  path = str(tmp_path / "a.mp4")
  with video_writer.VideoWriter(path, 25, iter([])) as writer:
    writer.write(noise(1)[0])
  with av.open(path) as container:
    assert not container.streams.audio


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_tags(tmp_path, suffix):
  path = str(tmp_path / f"a{suffix}")
  with video_writer.VideoWriter(path, 25, metadata={"comment": "made"}) as w:
    w.write(noise(1)[0])
  with av.open(path) as container:
    found = {k.lower(): v for k, v in container.metadata.items()}
  assert found["comment"] == "made"


def test_what_cannot_be_written(tmp_path):
  for name, message in (
    ("no/out.mp4", "there is no folder"),
    ("out.xyz", "expected a name that ends in .mp4"),
    ("folder.mp4", "it is a folder"),
  ):
    (tmp_path / "folder.mp4").mkdir(exist_ok=True)
    with pytest.raises(video.MediaError, match=message):
      video_writer.check_writable(str(tmp_path / name))
  video_writer.check_writable(str(tmp_path / "OUT.MP4"))
  assert os.listdir(tmp_path) == ["folder.mp4"]


def test_a_full_disk():
  """FFmpeg's error becomes one that names the file."""
  if not os.path.exists("/dev/full"):
    pytest.skip("no /dev/full here")
  with (
    pytest.raises(video.MediaError, match="out.mp4"),
    video_writer.VideoWriter("/dev/full/out.mp4", 25) as writer,
  ):
    writer.write(noise(1)[0])
