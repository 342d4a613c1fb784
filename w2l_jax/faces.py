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

  Near the ends of a stretch the average is over fewer frames, equally many on
  both sides.
  """
  smooth = boxes.copy()
  for run in runs(boxes):
    part = boxes[run].astype(np.float64)
    n = len(part)
    sums = np.concatenate([np.zeros((1, 4)), np.cumsum(part, axis=0)])
    i = np.arange(n)
    half = np.minimum(np.minimum(i, n - 1 - i), frames // 2)
    means = (sums[i + half + 1] - sums[i - half]) / (2 * half + 1)[:, None]
    smooth[run] = means
  return smooth


def hold_boxes(boxes: np.ndarray) -> np.ndarray:
  """Fills frames without a box [T, 4] with the box before, or the first."""
  valid = np.isfinite(boxes[:, 0])
  known = np.where(valid, np.arange(len(boxes)), -1)
  last = np.maximum.accumulate(known)
  return boxes[np.where(last < 0, int(np.argmax(valid)), last)]


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


def crop(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
  """Cuts the box [4] out of a frame and squashes it to [size, size, 3]."""
  y1, y2, x1, x2 = whole_pixels(box, *frame.shape[:2])
  return cv2.resize(frame[y1:y2, x1:x2], (size, size))


def feather_mask(height: int, width: int, ramp: float = 0.08) -> np.ndarray:
  """Weights that rise from the border of a patch to 1 inside it.

  Args:
    height, width: of the patch, pixels.
    ramp: how far the rise reaches, as a part of the shorter side.

  Returns:
    [height, width, 1] float32 in (0, 1].
  """
  reach = max(1.0, ramp * min(height, width))

  def rise(n):
    i = np.arange(n, dtype=np.float32)
    return np.clip((np.minimum(i, n - 1 - i) + 1) / reach, 0, 1)

  linear = np.minimum(rise(height)[:, None], rise(width)[None, :])
  return (linear * linear * (3 - 2 * linear))[..., None]


def paste(
  frame: np.ndarray, face: np.ndarray, box: np.ndarray, feathered: bool = True
) -> np.ndarray:
  """Returns a copy of `frame` with `face` in `box`.

  Args:
    frame: [H, W, 3] uint8.
    face: [S, S, 3] uint8.
    box: [4]; cut to whole pixels as in `crop`.
    feathered: whether to blend at the border; if not, the face is resized and
      set in as the original's inference.py does.
  """
  y1, y2, x1, x2 = whole_pixels(box, *frame.shape[:2])
  out = frame.copy()
  if not feathered:
    out[y1:y2, x1:x2] = cv2.resize(face, (x2 - x1, y2 - y1))
    return out
  patch = cv2.resize(face, (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC)
  mask = feather_mask(y2 - y1, x2 - x1)
  blend = mask * patch + (1 - mask) * frame[y1:y2, x1:x2]
  out[y1:y2, x1:x2] = np.clip(np.rint(blend), 0, 255).astype(np.uint8)
  return out
