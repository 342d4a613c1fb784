"""Figures of an expert, from similarities of true and wrong pairs.  NumPy."""

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
