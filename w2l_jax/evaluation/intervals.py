"""Means over clips with their confidence intervals.  NumPy."""

import numpy as np

RESAMPLES = 2000


def mean_interval(
  values: np.ndarray, level: float = 0.95, seed: int = 0
) -> dict[str, float]:
  """Mean of one figure over clips, with a percentile bootstrap over clips.

  Clips are drawn, not windows: windows of a clip are of one face and one voice
  and do not tell how the figure would differ on other clips.

  Args:
    values: [n] one number a clip; those that are not finite are left out.
    level: of confidence.
    seed: of the resampling.

  Returns:
    {"mean", "low", "high", "clips"}; low and high are NaN for a single clip,
    all are for none.
  """
  values = np.asarray(values, np.float64)
  values = values[np.isfinite(values)]
  n = len(values)
  low = high = np.nan
  if n > 1:
    rng = np.random.default_rng(seed)
    # One resample at a time: thousands of clips make a large table of all.
    means = [values[rng.integers(n, size=n)].mean() for _ in range(RESAMPLES)]
    tail = (1 - level) / 2
    low, high = (float(x) for x in np.quantile(means, (tail, 1 - tail)))
  mean = float(values.mean()) if n else np.nan
  return {"mean": mean, "low": low, "high": high, "clips": n}
