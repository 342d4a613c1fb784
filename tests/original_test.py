"""The original's arithmetic against its rules written out."""

import numpy as np
import pytest

from w2l_jax import original


@pytest.mark.parametrize("fps", [25, 30000 / 1001, 30, 50, 24000 / 1001])
@pytest.mark.parametrize("columns", [16, 17, 81, 401])
def test_windows(fps, columns):
  expected, i = [], 0
  while True:
    start = int(i * (80.0 / fps))
    if start + 16 > columns:
      expected.append(columns - 16)
      break
    expected.append(start)
    i += 1
  np.testing.assert_array_equal(
    original.window_starts(columns, fps, 16), expected
  )


@pytest.mark.parametrize(
  ("seconds", "frames"), [(1, 22), (2, 47), (5, 122), (10, 247)]
)
def test_known_lengths(seconds, frames):
  assert len(original.window_starts(1 + 80 * seconds, 25, 16)) == frames


@pytest.mark.parametrize("count", [1, 3, 5, 6, 40])
def test_smooth(count):
  """Forward means, truncated, of boxes that earlier means have replaced."""
  rng = np.random.default_rng(count)
  boxes = rng.integers(0, 300, (count, 4))
  before, expected = boxes.copy(), boxes.tolist()
  for i in range(count):
    if i + 5 <= count:
      window = expected[i : i + 5]
    else:
      window = expected[count - 5 :] if count >= 5 else expected[count - 5 :]
    expected[i] = [int(sum(c) / len(window)) for c in zip(*window, strict=True)]
  np.testing.assert_array_equal(original.smooth(boxes), expected)
  np.testing.assert_array_equal(boxes, before)


def test_boxes():
  """The first face, truncated, padded, cut to the frame."""
  found = {
    0: [[10.9, 20.9, 50.9, 60.9, 0.8], [0, 0, 90, 90, 0.7]],
    1: [[-5.5, 2.2, 95.0, 78.5, 0.99]],
    2: [[1, 1, 2, 2, 0.4]],
  }
  frames = [np.full((80, 90, 3), i, np.uint8) for i in range(3)]

  def detector(frame):
    return np.array(found[int(frame[0, 0, 0])], np.float32)

  boxes = original.boxes(frames[:2], detector, (1, 10, 2, 3))
  np.testing.assert_array_equal(boxes, [[8, 19, 53, 70], [0, 1, 90, 80]])
  with pytest.raises(original.NoFace) as raised:
    original.boxes(frames, detector)
  assert raised.value.args == (2,)
