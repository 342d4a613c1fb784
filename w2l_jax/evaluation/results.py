"""What an evaluation collects: rows of clips, curves, failures.  NumPy.

One row a clip (or face track), one figure a measure and variant.  Figures of a
set are means over its rows, so that a long clip counts no more than a short
one.
"""

import collections
import csv
import os

import numpy as np

from w2l_jax.evaluation import intervals

# What is measured, and what it means.
VARIANTS = {
  "generated": "a face made to say another clip's speech",
  "reconstructed": "a clip's first face made to say its own speech",
  "given": "the videos as they are",
  "real": "the real video of the speech",
  "copied": "one face held still beside the speech",
  "unsynced": "the real video of the face beside another clip's speech",
}


class Results:
  """Collects what is measured, clip by clip.

  Attributes:
    rows: one dict a clip: its names, and {(measure, variant): figure}.
    failures: [{"clip", "reason"}]: what was not scored, or not wholly.
    not_measured: {measure: why}, for all clips alike.
    of_sets: {(measure, variant): figure} that have no value for one clip.
    shift_tests: {judge: {score: {shift: figure}}}, of real clips.
    rocs: {judge: {"false", "true", "area", ...}}, of real clips.
  """

  def __init__(self):
    self.rows: list[dict] = []
    self.failures: list[dict] = []
    self.not_measured: dict[str, str] = {}
    self.of_sets: dict[tuple[str, str], float] = {}
    self.shift_tests: dict[str, dict] = {}
    self.rocs: dict[str, dict] = {}
    self._curves = collections.defaultdict(list)

  def add(self, names: dict[str, str], figures: dict) -> None:
    """Adds a clip: what it is called, and {(measure, variant): figure}."""
    self.rows.append({"names": names, "figures": figures})

  def fail(self, clip: str, reason: str) -> None:
    """Tells that a clip, or a part of its figures, is missing, and why."""
    self.failures.append({"clip": clip, "reason": reason})

  def add_to_curve(self, curve: str, variant: str, values) -> None:
    """Adds one clip's values to a curve; NaN where it has none."""
    self._curves[curve, variant].append(np.asarray(values, np.float64))

  def curves(self) -> dict[str, dict[str, np.ndarray]]:
    """Returns {curve: {variant: mean over clips}}, NaN where none has any."""
    found: dict = collections.defaultdict(dict)
    for (curve, variant), values in self._curves.items():
      values = np.stack(values)
      count = np.isfinite(values).sum(axis=0)
      total = np.nansum(values, axis=0)
      found[curve][variant] = np.where(
        count, total / np.maximum(count, 1), np.nan
      )
    return dict(found)

  def summary(self) -> dict[str, dict[str, dict[str, float]]]:
    """Returns {measure: {variant: mean, interval, number of clips}}."""
    columns: dict = collections.defaultdict(list)
    for row in self.rows:
      for key, value in row["figures"].items():
        columns[key].append(value)
    found: dict = collections.defaultdict(dict)
    for (measure, variant), values in columns.items():
      found[measure][variant] = intervals.mean_interval(np.array(values))
    for (measure, variant), value in self.of_sets.items():
      found[measure][variant] = {"mean": value, "clips": len(self.rows)}
    return {
      measure: {v: found[measure][v] for v in VARIANTS if v in found[measure]}
      for measure in found
    }

  def write_csv(self, path: str) -> None:
    """Writes the table of clips; has this name only when complete."""
    names = list(dict.fromkeys(k for r in self.rows for k in r["names"]))
    keys = list(dict.fromkeys(k for r in self.rows for k in r["figures"]))
    partial = f"{path}.{os.getpid()}.partial"
    with open(partial, "w", newline="", encoding="utf-8") as f:
      table = csv.writer(f)
      table.writerow([*names, *(f"{m}/{v}" for m, v in keys)])
      for row in self.rows:
        table.writerow(
          [row["names"].get(n, "") for n in names]
          + [f"{row['figures'][k]:.6g}" if k in row["figures"] else ""
             for k in keys]
        )  # fmt: skip
    os.replace(partial, path)


def without_nan(value):
  """Returns nested dicts and lists with None for NaN, as JSON has it."""
  if isinstance(value, dict):
    return {k: without_nan(v) for k, v in value.items()}
  if isinstance(value, list | tuple | np.ndarray):
    return [without_nan(v) for v in value]
  if isinstance(value, float | np.floating):
    return float(value) if np.isfinite(value) else None
  return int(value) if isinstance(value, np.integer) else value
