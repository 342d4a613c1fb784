"""What a face looks like: telling people of videos apart.  NumPy and OpenCV.

No recogniser, for none installs without a download: the texture of a face
turned upright by its eyes.  How well it does is in docs/DECISIONS.md.
"""

import itertools

import cv2
import numpy as np

# Faces are compared at this size, with their eyes at these parts of it.
_SIZE = 64
_EYES_ACROSS, _EYES_DOWN = (0.32, 0.68), 0.36
# Cells of the face, in each direction, whose textures are kept apart.
_CELLS = 6
# The eight neighbours of a pixel, around it.
_NEIGHBOURS = (
  (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)
)  # fmt: skip
# Looks of two faces that are less alike are of two people.  Between clips of a
# person on GRID: 0.74 and more; of five people: 0.73 and less.
MIN_LIKENESS = 0.74


def looks(frame: np.ndarray, eyes: np.ndarray) -> np.ndarray:
  """What a face looks like.

  Histograms of local binary patterns (Ahonen, Hadid, Pietikainen 2006): for
  each pixel, which of its neighbours are as bright as it; so light counts for
  little, and colours for nothing.

  Args:
    frame: BGR uint8.
    eyes: [4], x and y of the left one and of the right one.

  Returns:
    [D] float32 of mean 0 and length 1.
  """
  grey = cv2.cvtColor(upright(frame, eyes), cv2.COLOR_BGR2GRAY)
  grey = cv2.GaussianBlur(grey, (0, 0), 1.0)
  inner = grey[1:-1, 1:-1]
  patterns = np.zeros(inner.shape, np.uint8)
  for bit, (down, across) in enumerate(_NEIGHBOURS):
    there = grey[1 + down :, 1 + across :][: _SIZE - 2, : _SIZE - 2]
    patterns |= (there >= inner).astype(np.uint8) << bit
  edges = np.arange(_CELLS + 1) * len(inner) // _CELLS
  counts = [
    np.bincount(patterns[top:bottom, left:right].ravel(), minlength=256)
    for top, bottom in itertools.pairwise(edges)
    for left, right in itertools.pairwise(edges)
  ]
  # Roots, for a pattern that is everywhere tells little.
  found = np.sqrt(np.concatenate(counts)).astype(np.float32)
  found -= found.mean()
  return found / max(np.linalg.norm(found), 1e-9)


def upright(frame: np.ndarray, eyes: np.ndarray) -> np.ndarray:
  """Cuts a face out so that its eyes are level and in place, [S, S, 3]."""
  left, right = np.reshape(eyes, (2, 2)).astype(float)
  across = (right - left) / ((_EYES_ACROSS[1] - _EYES_ACROSS[0]) * _SIZE)
  down = np.array([-across[1], across[0]])
  corner = left - _SIZE * (_EYES_ACROSS[0] * across + _EYES_DOWN * down)
  return cv2.warpAffine(
    frame,
    np.column_stack([across, down, corner]),
    (_SIZE, _SIZE),
    flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE,
  )


def likeness(a: np.ndarray, b: np.ndarray) -> float:
  """Cosine of two looks, or of means of looks; see MIN_LIKENESS."""
  return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))
