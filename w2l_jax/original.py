"""The arithmetic of the original's inference.py, for comparisons.

What `launch.lipsync --compat` calls.  Boxes here are whole numbers; what the
original truncates is truncated.
"""

from collections.abc import Iterable

import numpy as np

from w2l_jax.detectors import Detector
from w2l_jax.windows import MEL_COLUMNS_PER_SECOND

# top, bottom, left, right.
PADS = (0, 10, 0, 0)
# Its detector keeps what it is half sure of.
MIN_SCORE = 0.5
SMOOTH_FRAMES = 5


class NoFace(LookupError):
  """A frame has no face; the argument is its number."""


def window_starts(num_columns: int, fps: float, columns: int) -> np.ndarray:
  """First mel columns of the windows that it makes, one for each frame.

  Those that are whole, int(i * (80 / fps)) for i = 0, 1, ..., and once more the
  last columns there are.

  Args:
    num_columns: of the mel, at least `columns`.
    fps: of the video.
    columns: of a window, M.

  Returns:
    [n] int64.
  """
  step, starts = MEL_COLUMNS_PER_SECOND / fps, []
  while int(len(starts) * step) + columns <= num_columns:
    starts.append(int(len(starts) * step))
  return np.array([*starts, num_columns - columns])


def boxes(
  frames: Iterable[np.ndarray],
  detector: Detector,
  pads: tuple[int, int, int, int] = PADS,
) -> np.ndarray:
  """The surest face of every frame, padded and cut to the frame.

  Args:
    frames: BGR uint8.
    detector: finds boxes in one frame, the surest first.
    pads: top, bottom, left, right.

  Returns:
    [T, 4] int64, x1, y1, x2, y2.

  Raises:
    NoFace: where there is none.
  """
  top, bottom, left, right = pads
  out = []
  for number, frame in enumerate(frames):
    found = detector(frame)
    if not len(found) or found[0, 4] < MIN_SCORE:
      raise NoFace(number)
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (int(max(v, 0)) for v in found[0, :4])
    out.append(
      [
        max(0, x1 - left),
        max(0, y1 - top),
        min(width, x2 + right),
        min(height, y2 + bottom),
      ]
    )
  return np.array(out, np.int64).reshape(-1, 4)


def smooth(boxes: np.ndarray, frames: int = SMOOTH_FRAMES) -> np.ndarray:
  """Means over each box and those after it, in place and truncated.

  The last ones take the last `frames` boxes, of which some are means already.

  Args:
    boxes: [T, 4] int64.
    frames: how many.

  Returns:
    [T, 4] int64.
  """
  boxes = boxes.copy()
  for i in range(len(boxes)):
    # A negative start counts from the end, there as here.
    start = i if i + frames <= len(boxes) else len(boxes) - frames
    boxes[i] = boxes[start:][:frames].mean(axis=0)
  return boxes
