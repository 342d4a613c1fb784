r"""Draws figures of several runs into one picture.

  python -m launch.plot_runs --runs=runs/expert,runs/expert_bf16 \
    --figures=train/loss,eval/two_way_accuracy --outfile=runs/compared.png

One plot for each figure of metrics.jsonl, one line for each run; needs the
extra "demo" (matplotlib).
"""

import os
import sys

from absl import app, flags

from launch import curves
from w2l_jax import metrics

_RUNS = flags.DEFINE_list("runs", None, "Workdirs.", required=True)
_FIGURES = flags.DEFINE_list(
  "figures", ["train/loss"], "Names of figures in metrics.jsonl."
)
_LABELS = flags.DEFINE_list(
  "labels", None, "Names of the runs; unset: those of their folders."
)
_OUTFILE = flags.DEFINE_string(
  "outfile", None, "Picture to write: .png, .svg or .pdf.", required=True
)


def main(argv):
  """Reads the runs and draws."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  labels = _LABELS.value or [
    os.path.basename(os.path.normpath(run)) for run in _RUNS.value
  ]
  if len(labels) != len(_RUNS.value) or len(set(labels)) != len(labels):
    sys.exit(
      f"error: {len(_RUNS.value)} runs, labels {', '.join(labels)}: expected "
      "one label for each, all different: --labels=A,B"
    )
  runs = dict(zip(labels, map(metrics.read_metrics, _RUNS.value), strict=True))
  for run, lines in zip(_RUNS.value, runs.values(), strict=True):
    if not lines:
      sys.exit(f"error: {run}: has no metrics.jsonl with figures in it")
  try:
    curves.draw(runs, _FIGURES.value, _OUTFILE.value)
  except (ValueError, OSError, ImportError) as e:
    sys.exit(f"error: {e}")
  print(f"written: {_OUTFILE.value}")


if __name__ == "__main__":
  app.run(main)
