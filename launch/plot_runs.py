r"""Draws figures of several runs into one picture.

  python -m launch.plot_runs --runs=runs/expert,runs/expert_bf16 \
    --figures=train/loss,eval/two_way_accuracy --outfile=runs/compared.png

One plot for each figure of metrics.jsonl, one line for each run; needs the
extra "demo" (matplotlib).
"""

import os
import sys

from absl import app, flags

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
_COLUMNS = 3


def points(lines: list[dict], name: str) -> tuple[list, list]:
  """Returns ([steps], [values]) of one figure."""
  found = [(line["step"], line[name]) for line in lines if name in line]
  return [step for step, _ in found], [value for _, value in found]


def draw(runs: dict[str, list[dict]], figures: list[str], outfile: str) -> None:
  """Draws the picture.

  Args:
    runs: {label: lines of its metrics.jsonl}.
    figures: names of figures.
    outfile: what to write.

  Raises:
    ValueError: if no run has a figure, with those that there are.
  """
  # Not pyplot, which has a display and one thread in mind.
  from matplotlib.figure import Figure

  known = {name for lines in runs.values() for line in lines for name in line}
  for name in figures:
    if name not in known:
      raise ValueError(
        f"no run has {name!r}; there are {', '.join(sorted(known - {'step'}))}"
      )
  columns = min(_COLUMNS, len(figures))
  rows = -(-len(figures) // columns)
  figure = Figure(figsize=(4.6 * columns, 3.1 * rows))
  axes = figure.subplots(rows, columns, squeeze=False)
  for axis in axes.flat[len(figures) :]:
    axis.remove()
  for axis, name in zip(axes.flat, figures, strict=False):
    for label, lines in runs.items():
      steps, values = points(lines, name)
      marker = "o" if len(steps) < 20 else None
      axis.plot(steps, values, label=label, marker=marker, markersize=3)
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("step")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
  axes.flat[0].legend(frameon=False, fontsize=9)
  figure.tight_layout()
  partial = os.path.join(
    os.path.dirname(outfile), f".partial.{os.path.basename(outfile)}"
  )
  figure.savefig(partial, dpi=110)
  os.replace(partial, outfile)


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
    draw(runs, _FIGURES.value, _OUTFILE.value)
  except (ValueError, OSError, ImportError) as e:
    sys.exit(f"error: {e}")
  print(f"written: {_OUTFILE.value}")


if __name__ == "__main__":
  app.run(main)
