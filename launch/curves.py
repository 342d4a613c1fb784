"""Curves of several runs in one picture, for launch.plot_runs and others."""

import os

_COLUMNS = 3


def points(lines: list[dict], name: str) -> tuple[list, list]:
  """Returns ([steps], [values]) of one figure."""
  found = [(line["step"], line[name]) for line in lines if name in line]
  return [step for step, _ in found], [value for _, value in found]


def draw(
  runs: dict[str, list[dict]],
  figures: list[str],
  outfile: str,
  xlabel: str = "step",
) -> None:
  """Draws the picture.

  Args:
    runs: {label: lines of its metrics.jsonl}.
    figures: names of figures, a panel each.
    outfile: what to write.
    xlabel: what the lines' "step" is.

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
    axis.set_xlabel(xlabel)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
  axes.flat[0].legend(frameon=False, fontsize=9)
  figure.tight_layout()
  partial = os.path.join(
    os.path.dirname(outfile), f".partial.{os.path.basename(outfile)}"
  )
  figure.savefig(partial, dpi=110)
  os.replace(partial, outfile)
