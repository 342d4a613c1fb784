"""The Fréchet distance of two sets of features, in one pass over each.

FID is this distance of Inception's features (Heusel et al. 2017).  Of any
other features it is another quantity, and has to be called so.  NumPy; whence
the features come is metric_weights.py's matter.
"""

import numpy as np
import scipy.linalg


class FeatureStatistics:
  """Mean and covariance of features that come a few at a time.

  Memory does not grow with their number.
  """

  def __init__(self):
    self.count = 0
    self._sum = self._outer = None

  def add(self, features: np.ndarray) -> None:
    """Adds [n, D] features."""
    features = np.asarray(features, np.float64)
    if self._sum is None:
      size = features.shape[1]
      self._sum, self._outer = np.zeros(size), np.zeros((size, size))
      # Sums around a point near the mean: E[x^2] - E[x]^2 cancels elsewhere.
      self._origin = features[:1].mean(axis=0)
    features = features - self._origin
    self.count += len(features)
    self._sum += features.sum(axis=0)
    self._outer += features.T @ features

  @property
  def mean(self) -> np.ndarray:
    """[D]."""
    return self._origin + self._sum / self.count

  @property
  def covariance(self) -> np.ndarray:
    """[D, D], unbiased, as np.cov and pytorch-fid have it."""
    centred = np.outer(self._sum, self._sum) / self.count
    return (self._outer - centred) / (self.count - 1)


def distance(
  mean_a: np.ndarray,
  covariance_a: np.ndarray,
  mean_b: np.ndarray,
  covariance_b: np.ndarray,
) -> float:
  """Squared Fréchet distance of two Gaussians.

  |mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)).  The trace of the root is
  the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is
  symmetric: real to the last bit and no failure where A B is singular, as it is
  with fewer pictures than features.

  Args:
    mean_a, mean_b: [D].
    covariance_a, covariance_b: [D, D].
  """
  values, vectors = scipy.linalg.eigh(covariance_a)
  root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
  inner = scipy.linalg.eigvalsh(root @ covariance_b @ root)
  trace = np.trace(covariance_a) + np.trace(covariance_b)
  difference = mean_a - mean_b
  return float(
    difference @ difference + trace - 2 * np.sum(np.sqrt(np.maximum(inner, 0)))
  )


def between(a: FeatureStatistics, b: FeatureStatistics) -> float:
  """The distance of two sets; NaN where one has fewer than two features."""
  if min(a.count, b.count) < 2:
    return float("nan")
  return distance(a.mean, a.covariance, b.mean, b.covariance)
