"""Offset, LSE-D and LSE-C from features of lips and of speech.  NumPy.

A judge (SyncNet, or our expert) gives one feature of the lips and one of the
speech for every window; here they are laid beside each other at every shift.
Source: syncnet_python (SyncNetInstance.py), paper section 4.2.

Two ways to count:

  faithful   The published way.  Scores are those of the best of all shifts, so
             a constant lag costs nothing.  Where a shift takes a window past
             the end of the speech, its distance from a feature of zeros counts:
             at a shift of k frames that is k of n windows, whatever was said.
  corrected  Scores are those of the clip as it is, without a shift; `offset`
             tells of a lag.  Only windows that have a partner count, and shifts
             that leave fewer than half of the windows one are left out.
"""

import dataclasses

import numpy as np

# The published search: this many frames to either side (run_syncnet.py).
MAX_SHIFT = 15
# torch.nn.functional.pairwise_distance adds it to every difference.
_TORCH_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class SyncScore:
  """What one clip, or one face track of it, scores.

  Attributes:
    offset: frames by which the speech comes too early at its best shift, as
      syncnet_python prints it: negative where speech lags behind the lips.
    lse_d: LSE-D, the mean distance; see the module for the shift.
    lse_c: LSE-C, the median of the distances over shifts less LSE-D.
    distances: [2 max_shift + 1] by shift, NaN where one is left out; entry
      max_shift + k lays lips beside speech k frames later.
    windows: how many were laid beside each other without a shift.
  """

  offset: int
  lse_d: float
  lse_c: float
  distances: np.ndarray
  windows: int


def shift_distances(
  lips: np.ndarray,
  speech: np.ndarray,
  max_shift: int = MAX_SHIFT,
  faithful: bool = False,
) -> np.ndarray:
  """Mean distance of lips [n, D] from speech [n, D] at every shift.

  Args:
    lips: of n windows that follow each other by a frame.
    speech: of the same windows.
    max_shift: in frames, to either side.
    faithful: how to count at the ends, see the module.

  Returns:
    [2 max_shift + 1] float64; NaN where a shift is left out.

  Raises:
    ValueError: if there is no window, or the two differ in shape.
  """
  if lips.shape != speech.shape or lips.ndim != 2 or not len(lips):
    raise ValueError(
      f"features of lips are {lips.shape}, of speech {speech.shape}; expected "
      "the same [windows, features] with at least one window"
    )
  lips, speech = lips.astype(np.float64), speech.astype(np.float64)
  n = len(lips)
  padded = np.pad(speech, ((max_shift, max_shift), (0, 0)))
  real = np.pad(np.ones(n, bool), max_shift)
  found = np.full(2 * max_shift + 1, np.nan)
  for k in range(2 * max_shift + 1):
    difference = lips - padded[k : k + n] + _TORCH_EPSILON
    distances = np.sqrt(np.sum(difference**2, axis=1))
    partners = real[k : k + n]
    if faithful:
      found[k] = distances.mean()
    elif 2 * partners.sum() >= n:
      found[k] = distances[partners].mean()
  return found


def score(
  lips: np.ndarray,
  speech: np.ndarray,
  max_shift: int = MAX_SHIFT,
  faithful: bool = False,
) -> SyncScore:
  """Scores one clip; arguments and errors as `shift_distances`."""
  distances = shift_distances(lips, speech, max_shift, faithful)
  best = int(np.nanargmin(distances))
  lse_d = distances[best if faithful else max_shift]
  return SyncScore(
    offset=max_shift - best,
    lse_d=float(lse_d),
    lse_c=float(np.nanmedian(distances) - lse_d),
    distances=distances,
    windows=len(lips),
  )
