"""Generated faces back into their frames, without a border to be seen.

NumPy and OpenCV only.  Where faces are is in faces.py, which also has the hard
paste of the original.
"""

import cv2
import numpy as np

from w2l_jax import faces

# How far the rise from the border to the whole face reaches, in parts of half
# of the box's side.
RAMP = 0.25
# "lower": what the network had to invent, the box's lower half; the eyes stay
# the frame's own, sharp.  "whole": all of the box.
REGIONS = ("lower", "whole")
# Where the lower half's weights begin to rise and are whole, in parts of the
# box's height: below the eyes, above the mouth.
_RISE = (0.46, 0.60)
# Differences of colour above this many levels are of things, not of light.
_MOST_DIFFERENCE = 40.0


def _smoothstep(x: np.ndarray) -> np.ndarray:
  x = np.clip(x, 0, 1)
  return x * x * (3 - 2 * x)


def mask(
  x: np.ndarray, y: np.ndarray, region: str = "lower", ramp: float = RAMP
) -> np.ndarray:
  """Weights of the generated face.

  A box with round corners (a superellipse of degree 4), 0 on its border and
  outside.

  Args:
    x, y: coordinates in the box, from 0 to 1: arrays that broadcast to [h, w].
    region: one of REGIONS.
    ramp: see RAMP.

  Returns:
    [h, w] float32 in [0, 1].
  """
  radius = ((2 * x - 1) ** 4 + (2 * y - 1) ** 4) ** 0.25
  weights = _smoothstep((1 - radius) / ramp)
  if region == "lower":
    start, stop = _RISE
    weights = weights * _smoothstep((y - start) / (stop - start))
  return weights.astype(np.float32)


def matched(
  patch: np.ndarray, around: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """Brings a patch's colours to those around it.

  Adds to each channel the plane a + b x + c y that best explains the difference
  where both are blended, weighted by m (1 - m).

  Args:
    patch: [h, w, 3] float32, the generated one.
    around: [h, w, 3], the frame's own.
    weights: [h, w] of `mask`, m.

  Returns:
    [h, w, 3] float32.
  """
  height, width = weights.shape
  ring = weights * (1 - weights)
  total = ring.sum()
  if total < 1e-6:
    return patch
  x = np.linspace(-1, 1, width, dtype=np.float32)
  y = np.linspace(-1, 1, height, dtype=np.float32)
  difference = np.clip(around - patch, -_MOST_DIFFERENCE, _MOST_DIFFERENCE)
  difference *= ring[..., None]
  # The normal equations from sums over rows and columns.
  rows, columns = ring.sum(axis=1), ring.sum(axis=0)
  sx, sy = columns @ x, rows @ y
  sxx, syy, sxy = columns @ x**2, rows @ y**2, y @ ring @ x
  left = np.array([[total, sx, sy], [sx, sxx, sxy], [sy, sxy, syy]], float)
  by_row, by_column = difference.sum(axis=1), difference.sum(axis=0)
  right = np.stack([by_row.sum(axis=0), x @ by_column, y @ by_row])
  # A little of nothing: a ring on one side only says nothing of the other.
  plane = np.linalg.solve(left + 1e-3 * total * np.eye(3), right)
  plane = plane.astype(np.float32)
  return (
    patch
    + (plane[0] + x[:, None] * plane[1])[None]
    + (y[:, None] * plane[2])[:, None]
  )


def blend(
  frame: np.ndarray,
  face: np.ndarray,
  box: np.ndarray,
  region: str = "lower",
  match: bool = True,
  opacity: float = 1.0,
  angle: float = 0.0,
) -> np.ndarray:
  """Returns a copy of `frame` with `face` blended into `box`.

  Args:
    frame: [H, W, 3] uint8.
    face: [S, S, 3] uint8, of faces.crop_exact's box.
    box: [4], at any part of a pixel.
    region: one of REGIONS.
    match: whether its colours are brought to the frame's.
    opacity: of the whole, in [0, 1].
    angle: radians by which the box is turned, as in faces.to_frame.

  Returns:
    [H, W, 3] uint8; outside the box every pixel is the frame's.
  """
  height, width = frame.shape[:2]
  box = faces.inside(box, height, width)
  # Smaller in the frame than the face is: nothing may alias.
  size = (
    min(face.shape[1], max(1, round(box[2] - box[0]))),
    min(face.shape[0], max(1, round(box[3] - box[1]))),
  )
  if size != face.shape[1::-1]:
    face = cv2.resize(face, size, interpolation=cv2.INTER_AREA)
  to_frame = faces.to_frame(box, size, angle)
  to_face = cv2.invertAffineTransform(to_frame)
  left, top, right, bottom = _drawn_part(to_frame, size, region)
  left, top = max(left, 0), max(top, 0)
  right, bottom = min(right, width), min(bottom, height)
  across, down = np.arange(left, right)[None], np.arange(top, bottom)[:, None]
  x = to_face[0, 0] * across + to_face[0, 2]
  y = to_face[1, 1] * down + to_face[1, 2]
  if angle:
    x, y = x + to_face[0, 1] * down, y + to_face[1, 0] * across
  weights = mask((x + 0.5) / size[0], (y + 0.5) / size[1], region)
  # Of a pixel of the frame's part in the face.
  to_face[:, 2] += to_face[:, :2] @ [left, top]
  patch = cv2.warpAffine(
    face,
    to_face,
    (right - left, bottom - top),
    flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE,
  ).astype(np.float32)
  around = frame[top:bottom, left:right].astype(np.float32)
  if match:
    patch = matched(patch, around, weights)
  weights = weights[..., None] * np.float32(opacity)
  blended = around + weights * (patch - around)
  out = frame.copy()
  out[top:bottom, left:right] = np.clip(np.rint(blended), 0, 255)
  return out


def _drawn_part(
  to_frame: np.ndarray, size: tuple[int, int], region: str
) -> tuple[int, ...]:
  """Whole pixels around what is drawn: left, top, right, bottom.

  Above the rise nothing is drawn, and nothing need be computed.
  """
  start = _RISE[0] if region == "lower" else 0.0
  x = np.array([0, size[0], 0, size[0]]) - 0.5
  y = np.array([start, start, 1, 1]) * size[1] - 0.5
  corners = to_frame @ np.stack([x, y, np.ones(4)]) + 0.5
  first = np.floor(corners.min(axis=1) + 1e-6).astype(int)
  last = np.ceil(corners.max(axis=1) - 1e-6).astype(int)
  return (*first.tolist(), *last.tolist())
