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
    x, y: [w], [h] coordinates in the box, from 0 to 1.
    region: one of REGIONS.
    ramp: see RAMP.

  Returns:
    [h, w] float32 in [0, 1].
  """
  across, down = (2 * x - 1) ** 4, (2 * y - 1) ** 4
  radius = (across[None, :] + down[:, None]) ** 0.25
  weights = _smoothstep((1 - radius) / ramp)
  if region == "lower":
    start, stop = _RISE
    weights = weights * _smoothstep((y - start) / (stop - start))[:, None]
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
) -> np.ndarray:
  """Returns a copy of `frame` with `face` blended into `box`.

  Args:
    frame: [H, W, 3] uint8.
    face: [S, S, 3] uint8, of faces.crop_exact's box.
    box: [4], at any part of a pixel.
    region: one of REGIONS.
    match: whether its colours are brought to the frame's.
    opacity: of the whole, in [0, 1].

  Returns:
    [H, W, 3] uint8; outside the box every pixel is the frame's.
  """
  x1, y1, x2, y2 = faces.inside(box, *frame.shape[:2])
  # Above the rise nothing is drawn, and nothing need be computed.
  start = _RISE[0] if region == "lower" else 0.0
  left, top = int(np.floor(x1)), int(np.floor(y1 + start * (y2 - y1)))
  right, bottom = int(np.ceil(x2)), int(np.ceil(y2))
  x = (np.arange(left, right) + 0.5 - x1) / (x2 - x1)
  y = (np.arange(top, bottom) + 0.5 - y1) / (y2 - y1)
  weights = mask(x, y, region)
  size = (
    min(face.shape[1], right - left),
    min(face.shape[0], bottom - top),
  )
  if size != face.shape[1::-1]:  # Smaller in the frame: nothing may alias.
    face = cv2.resize(face, size, interpolation=cv2.INTER_AREA)
  # Of a pixel of the frame's part in the face.
  step_x, step_y = size[0] / (x2 - x1), size[1] / (y2 - y1)
  to_face = np.array(
    [
      [step_x, 0, (left + 0.5 - x1) * step_x - 0.5],
      [0, step_y, (top + 0.5 - y1) * step_y - 0.5],
    ]
  )
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
