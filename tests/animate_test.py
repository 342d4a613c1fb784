"""Moving pictures: they move, at the right speed."""

import conftest
import cv2
import numpy as np
import pytest

from launch import animate


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_it_moves(tmp_path, suffix):
  path = str(tmp_path / "face.mp4")
  conftest.write_video(path, conftest.talking_frames(25, size=128))
  out = str(tmp_path / f"out{suffix}")
  assert animate.animate([path, path], out, height=64, seconds=0.8) == 10
  read, animation = cv2.imreadanimation(out)
  assert read and len(animation.frames) == 10
  assert set(animation.durations) == {80}
  assert animation.frames[0].shape[:2] == (64, 128)
  different = np.abs(
    animation.frames[0].astype(int) - animation.frames[5].astype(int)
  )
  assert different.max() > 30
  assert len(list(tmp_path.iterdir())) == 2


def test_other_suffixes(tmp_path):
  with pytest.raises(ValueError, match="expected .webp or .gif"):
    animate.animate([], str(tmp_path / "out.png"))
