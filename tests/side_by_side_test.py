"""Clips beside each other: as large and as long as said, with their sound."""

import numpy as np
import pytest
from conftest import babble, talking_frames, write_video

from w2l_jax import side_by_side, video


def test_crops(tmp_path):
  path = str(tmp_path / "crops.mp4")
  colours = ((200, 40, 40), (40, 200, 40))
  columns = [np.full((30, 24, 24, 3), c, np.uint8) for c in colours]
  side_by_side.write_crops(path, columns, babble(1.2))
  frames = list(video.frames_at_rate(path, 25))
  # Eight times as large: the first size of at least 192.
  assert len(frames) == 30 and frames[0].shape == (192, 384, 3)
  for colour, x in zip(colours, (96, 288), strict=True):
    np.testing.assert_allclose(frames[10][96, x], colour, atol=6)
  waveform, rate = video.read_audio(path)
  assert len(waveform) / rate == pytest.approx(1.2, abs=0.1)


def test_videos(tmp_path):
  paths = [str(tmp_path / f"{n}.mp4") for n in ("long", "short")]
  write_video(paths[0], talking_frames(20, size=144), babble(0.8))
  write_video(paths[1], talking_frames(12, size=96), babble(0.48, seed=1))
  path = str(tmp_path / "both.mp4")
  side_by_side.write_videos(path, paths, paths[1])
  frames = list(video.frames_at_rate(path, 25))
  # As long as the shorter one; squares of the same height.
  assert len(frames) == 12 and frames[0].shape == (288, 576, 3)
  waveform, rate = video.read_audio(path)
  assert len(waveform) / rate == pytest.approx(0.48, abs=0.1)
