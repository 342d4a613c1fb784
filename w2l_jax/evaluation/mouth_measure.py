"""How far a mouth is open, from pixels alone: no landmarks, no network.

Between open lips are things that are neither skin nor lip: the dark of the
mouth, teeth, tongue.  The measure is how much of that there is around the
middle of the mouth.  It is meant for tracks: its unit differs from face to
face, its correlation with the true opening does not (tests hold it against the
truth of rendered faces).
"""

import cv2
import numpy as np

# Parts of the square face crop: (first, last) of rows, of columns.
_MOUTH_ROWS, _MOUTH_COLUMNS = (0.62, 0.97), (0.35, 0.65)
_SKIN_ROWS, _SKIN_COLUMNS = (0.55, 0.90), (0.20, 0.80)
# The reddest tenth of the mouth's surroundings is lips.
_LIP_SHARE = 0.1
# Distances in CIE L*a*b*: below the first is noise, beyond the second all the
# same.
_NOISE, _CEILING = 3.0, 30.0


def mouth_opening(crops: np.ndarray) -> np.ndarray:
  """Measures the mouth's opening in every frame of one clip.

  Args:
    crops: [n, S, S, 3] uint8 BGR face crops of one person.

  Returns:
    [n] float64, from 0 on; the unit is arbitrary and differs between clips.
  """
  size = crops.shape[1]

  def part(images, rows, columns):
    (top, bottom), (left, right) = (
      (round(first * size), round(last * size))
      for first, last in (rows, columns)
    )
    return images[:, top:bottom, left:right]

  colours = np.stack(
    [
      cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
      for crop in crops
    ]
  )
  skin = np.median(
    part(colours, _SKIN_ROWS, _SKIN_COLUMNS).reshape(-1, 3), axis=0
  )
  mouth = part(colours, _MOUTH_ROWS, _MOUTH_COLUMNS)
  red = mouth[..., 1] - skin[1]
  lips = np.median(mouth[red >= np.quantile(red, 1 - _LIP_SHARE)], axis=0)
  # Distance from the line between skin and lips, on which their mixtures lie.
  line = lips - skin
  along = (mouth - skin) @ line / max(float(line @ line), 1e-6)
  nearest = skin + np.clip(along, 0, 1.3)[..., None] * line
  strange = np.linalg.norm(mouth - nearest, axis=-1)
  return np.clip(strange - _NOISE, 0, _CEILING).sum(axis=(1, 2)) / size**2


def track_correlation(track: np.ndarray, truth: np.ndarray) -> float:
  """Pearson correlation of two tracks [n]; 0 if one of them is constant."""
  if np.ptp(track) == 0 or np.ptp(truth) == 0:
    return 0.0
  return float(np.corrcoef(track, truth)[0, 1])
