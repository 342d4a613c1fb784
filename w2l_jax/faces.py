"""Face boxes over time, crops, and pasting faces back.  NumPy and OpenCV only.

Boxes are float32 [T, 4]: x1, y1, x2, y2 in source pixels, NaN where a frame
has no face.  Which detector finds them is in detectors.py; data preparation and
inference both call this module, so that training and use see the same crops.
"""

import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np

from w2l_jax.detectors import Detector

# The one crop rule so far, written into records and checkpoints: the detector's
# box, cut at whole pixels inside the frame and squashed to a square with
# OpenCV's bilinear resize (original: preprocess.py).
CROP_RULE = "box"


@dataclasses.dataclass(frozen=True)
class Tracking:
  """How boxes are found over time.

  Attributes:
    every_frames: the detector runs on every so many frames; boxes between are
      interpolated.
    min_score: detections below are ignored.
    min_iou: least overlap of two detections in a row of the same face.
    max_missed: a face may be missed in this many detections in a row.
    smooth_frames: length of the centred moving average over the boxes.
  """

  every_frames: int = 5
  min_score: float = 0.9
  min_iou: float = 0.3
  max_missed: int = 2
  smooth_frames: int = 11


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes a [4] and b [n, 4]."""
  width = np.minimum(a[2], b[:, 2]) - np.maximum(a[0], b[:, 0])
  height = np.minimum(a[3], b[:, 3]) - np.maximum(a[1], b[:, 1])
  intersection = np.maximum(width, 0) * np.maximum(height, 0)
  area_a = (a[2] - a[0]) * (a[3] - a[1])
  area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
  return intersection / np.maximum(area_a + area_b - intersection, 1e-9)


def track_face(
  frames: Iterable[np.ndarray],
  detector: Detector,
  tracking: Tracking = Tracking(),  # noqa: B008 (frozen)
) -> np.ndarray:
  """Follows one face through a video: the largest one, until it is lost.

  Args:
    frames: BGR uint8, decoded one after the other; only the last is kept.
    detector: finds boxes in one frame.
    tracking: how.

  Returns:
    [T, 4] boxes, NaN where no face is followed: before the first detection,
    after the last, in gaps longer than `max_missed` detections, and for at
    least one frame where the face is replaced by another elsewhere (a cut).
  """
  keys: list[tuple[int, np.ndarray]] = []
  count, frame = -1, None
  for count, frame in enumerate(frames):  # noqa: B007
    if count % tracking.every_frames == 0:
      keys.append((count, detector(frame)))
  # The last frame too, so that the end is not extrapolated.
  if frame is not None and count % tracking.every_frames:
    keys.append((count, detector(frame)))

  boxes = np.full((count + 1, 4), np.nan, np.float32)
  run: list[tuple[int, np.ndarray]] = []  # (frame, box) of the face followed

  def finish():
    if run:
      times = [time for time, _ in run]
      span = np.arange(times[0], times[-1] + 1)
      found = np.array([box for _, box in run])
      boxes[span] = np.stack(
        [np.interp(span, times, found[:, i]) for i in range(4)], axis=1
      )
      # Another face right before: they must not read as one stretch.
      if times[0] and np.isfinite(boxes[times[0] - 1, 0]):
        boxes[times[0]] = np.nan
      run.clear()

  missed = 0
  for time, found in keys:
    found = found[found[:, 4] >= tracking.min_score][:, :4]
    if run and len(found):
      overlaps = iou(run[-1][1], found)
      best = int(np.argmax(overlaps))
      if overlaps[best] >= tracking.min_iou:
        run.append((time, found[best]))
        missed = 0
        continue
    missed += 1
    if run and len(found) == 0 and missed <= tracking.max_missed:
      continue
    finish()
    if len(found):
      sizes = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
      run.append((time, found[int(np.argmax(sizes))]))
      missed = 0
  finish()
  return boxes


def runs(boxes: np.ndarray) -> list[slice]:
  """Returns the stretches of frames that have boxes."""
  valid = np.concatenate([[False], np.isfinite(boxes[:, 0]), [False]])
  edges = np.flatnonzero(valid[1:] != valid[:-1])
  return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def smooth_boxes(boxes: np.ndarray, frames: int) -> np.ndarray:
  """Centred moving average over each stretch of boxes, [T, 4] to [T, 4].

  Further columns are averaged alike.  Near the ends of a stretch the average is
  over fewer frames, equally many on both sides.
  """
  smooth = boxes.copy()
  for run in runs(boxes):
    part = boxes[run].astype(np.float64)
    n = len(part)
    sums = np.cumsum(np.pad(part, ((1, 0), (0, 0))), axis=0)
    i = np.arange(n)
    half = np.minimum(np.minimum(i, n - 1 - i), frames // 2)
    means = (sums[i + half + 1] - sums[i - half]) / (2 * half + 1)[:, None]
    smooth[run] = means
  return smooth


def pad_boxes(boxes: np.ndarray, pads: tuple[int, int, int, int]) -> np.ndarray:
  """Widens boxes [T, 4] by pads (top, bottom, left, right), in pixels."""
  top, bottom, left, right = pads
  return boxes + np.array([-left, -top, right, bottom], boxes.dtype)


def whole_pixels(
  box: np.ndarray, height: int, width: int
) -> tuple[int, int, int, int]:
  """Cuts a box [4] to whole pixels inside the frame: (y1, y2, x1, x2).

  Coordinates are truncated as the original does; the result has at least one
  pixel.
  """
  x1, y1, x2, y2 = (int(v) for v in box)
  x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
  return y1, max(min(y2, height), y1 + 1), x1, max(min(x2, width), x1 + 1)


def inside(box: np.ndarray, height: int, width: int) -> tuple[float, ...]:
  """Cuts a box [4] at the frame's borders, not to whole pixels.

  Returns:
    (x1, y1, x2, y2); at least a pixel wide and high.
  """
  x1, y1, x2, y2 = (float(v) for v in box)
  x1, y1 = min(max(x1, 0.0), width - 1.0), min(max(y1, 0.0), height - 1.0)
  return x1, y1, max(min(x2, width), x1 + 1), max(min(y2, height), y1 + 1)


def crop(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
  """Cuts the box [4] out of a frame and squashes it to [size, size, 3]."""
  y1, y2, x1, x2 = whole_pixels(box, *frame.shape[:2])
  return cv2.resize(frame[y1:y2, x1:x2], (size, size))


def to_frame(
  box: tuple[float, ...], size: tuple[int, int], angle: float = 0.0
) -> np.ndarray:
  """Where the pixels of a crop lie in its frame.

  Args:
    box: x1, y1, x2, y2 as `inside` gives it.
    size: of the crop, width and height.
    angle: radians by which the box is turned about its middle, clockwise on
      the screen.

  Returns:
    [2, 3] matrix from (x, y, 1) in the crop to (x, y) in the frame; pixels are
    at whole numbers in both.
  """
  x1, y1, x2, y2 = box
  step_x, step_y = (x2 - x1) / size[0], (y2 - y1) / size[1]
  cos, sin = np.cos(angle), np.sin(angle)
  turn = np.array([[cos, -sin], [sin, cos]])
  middle = np.array([x1 + x2, y1 + y2]) / 2
  # Centres of pixels are at .5.
  corner = np.array([x1 - middle[0], y1 - middle[1]])
  first = turn @ (corner + 0.5 * np.array([step_x, step_y])) + middle - 0.5
  return np.column_stack([turn * [step_x, step_y], first])


def crop_exact(
  frame: np.ndarray, box: np.ndarray, size: int, angle: float = 0.0
) -> np.ndarray:
  """As `crop`, but of the box as it is, so that steady movement stays steady.

  The same bilinear samples; those of a box at whole pixels are `crop`'s.

  Args:
    frame: [H, W, 3] uint8.
    box: [4].
    size: S.
    angle: radians by which the box is turned, as in `to_frame`; what it takes
      from outside the frame is the frame's border, continued.

  Returns:
    [S, S, 3] uint8.
  """
  box = inside(box, *frame.shape[:2])
  return cv2.warpAffine(
    frame,
    to_frame(box, (size, size), angle),
    (size, size),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE,
  )


def paste(frame: np.ndarray, face: np.ndarray, box: np.ndarray) -> np.ndarray:
  """Returns a copy of `frame` with `face` in `box`, as the original pastes.

  Args:
    frame: [H, W, 3] uint8.
    face: [S, S, 3] uint8.
    box: [4]; cut to whole pixels as in `crop`.
  """
  y1, y2, x1, x2 = whole_pixels(box, *frame.shape[:2])
  out = frame.copy()
  out[y1:y2, x1:x2] = cv2.resize(face, (x2 - x1, y2 - y1))
  return out
