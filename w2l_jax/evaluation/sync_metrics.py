"""Figures of a judge, from similarities of true and wrong pairs.  NumPy."""

import numpy as np


def mean_bce(similarity: np.ndarray, in_sync: np.ndarray) -> float:
  """Mean cross-entropy of cosines [n] against labels [n], logs clamped at -100.

  The original's validation loss (color_syncnet_train.py).
  """
  p = similarity.astype(np.float64)
  with np.errstate(divide="ignore"):
    log_p = np.maximum(np.log(p), -100.0)
    log_1mp = np.maximum(np.log1p(-p), -100.0)
  return float(-np.mean(in_sync * log_p + (1 - in_sync) * log_1mp))


def two_way_accuracy(true: np.ndarray, wrong: np.ndarray) -> float:
  """How often the true pair's similarity [n] exceeds the wrong one's [n].

  A tie counts one half, so that a constant answer scores 0.5.
  """
  return float(np.mean((true > wrong) + 0.5 * (true == wrong)))


def balanced_accuracy(
  true: np.ndarray, wrong: np.ndarray, threshold: float
) -> float:
  """Mean share of true pairs above, and of wrong ones not above, threshold."""
  return float((np.mean(true > threshold) + np.mean(wrong <= threshold)) / 2)


def best_threshold(true: np.ndarray, wrong: np.ndarray) -> float:
  """Returns the threshold of the highest balanced accuracy.

  Candidates lie halfway between neighbouring similarities, or above them all.
  """
  values = np.unique(np.concatenate([true, wrong]).astype(np.float64))
  candidates = np.concatenate([(values[1:] + values[:-1]) / 2, values[-1:]])
  above = 1 - np.searchsorted(np.sort(true), candidates, "right") / len(true)
  below = np.searchsorted(np.sort(wrong), candidates, "right") / len(wrong)
  return float(candidates[np.argmax(above + below)])


def cosines(lips: np.ndarray, speech: np.ndarray) -> np.ndarray:
  """Cosines of features [n, D] and [n, D], [n] float64; 0 where one is 0."""
  lips, speech = lips.astype(np.float64), speech.astype(np.float64)
  norms = np.linalg.norm(lips, axis=1) * np.linalg.norm(speech, axis=1)
  return np.sum(lips * speech, axis=1) / np.maximum(norms, 1e-12)


def shift_similarities(
  lips: np.ndarray, speech: np.ndarray, max_shift: int, counted: np.ndarray
) -> list[np.ndarray]:
  """Cosines of every window's speech with lips so many frames before it.

  Args:
    lips: [n, D] of windows that follow each other by a frame.
    speech: [n, D] of the same windows.
    max_shift: in frames, to either side.
    counted: [n] bool, which windows' speech counts (those with speech).

  Returns:
    2 max_shift + 1 arrays [n] float64; entry max_shift + k lays lips beside
    speech k frames later, as in lse.  NaN where there are no such lips or the
    speech does not count.
  """
  n = len(lips)
  found = []
  for k in range(-max_shift, max_shift + 1):
    values = np.full(n, np.nan)
    v = np.arange(max(0, k), max(0, min(n, n + k)))
    v = v[counted[v]]
    values[v] = cosines(lips[v - k], speech[v])
    found.append(values)
  return found


def accuracy_over_shifts(similarities: list[np.ndarray]) -> np.ndarray:
  """How often speech is nearer to its own lips than to those of each shift.

  Args:
    similarities: of `shift_similarities`.

  Returns:
    [2 max_shift + 1]; a tie counts one half, so the middle is 0.5; NaN where
    there is no pair.
  """
  true = similarities[len(similarities) // 2]
  found = np.full(len(similarities), np.nan)
  for k, wrong in enumerate(similarities):
    both = np.isfinite(true) & np.isfinite(wrong)
    if both.any():
      found[k] = two_way_accuracy(true[both], wrong[both])
  return found


def roc(true: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The receiver operating characteristic of a similarity as a detector.

  Args:
    true: [n] similarities of pairs that belong together.
    wrong: [m] of pairs that do not.

  Returns:
    (false positive rates, true positive rates) at every threshold from above
    all similarities down to below all: both begin at 0 and end at 1.
  """
  thresholds = np.unique(np.concatenate([true, wrong]))[::-1]
  rates = [
    np.concatenate(
      [[0.0], 1 - np.searchsorted(np.sort(x), thresholds) / len(x)]
    )
    for x in (wrong, true)
  ]
  return rates[0], rates[1]


def area_under_roc(false_rates: np.ndarray, true_rates: np.ndarray) -> float:
  """Area under a curve of `roc`: 0.5 is chance, 1 perfect."""
  return float(np.trapezoid(true_rates, false_rates))
