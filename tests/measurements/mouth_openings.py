"""How far drawn mouths open, beside the truth's: figures of docs/RESULTS.md.

  python -m tests.measurements.mouth_openings --data=runs/results/data \
    --align=GRID/align --checkpoints=grid-small,runs/results/gan_improved

Of each test clip, drawn from its first face and its own speech: the range of
the mouth's opening, its mean, and what is left of it at words that begin with
closed lips.
"""

import numpy as np
from absl import app, flags

from tests.measurements.grid_drawer import Drawer
from w2l_jax import dataset
from w2l_jax.evaluation import mouth_measure

_DATA = flags.DEFINE_string("data", None, "GRID, prepared.", required=True)
_ALIGN = flags.DEFINE_string("align", None, "GRID's align/.", required=True)
_CHECKPOINTS = flags.DEFINE_list("checkpoints", ["grid-small"], "Generators.")

# GRID's words and letters that begin with b or p.
_CLOSED = {"bin", "blue", "by", "place", "please", "b", "p"}


def spread(opening: np.ndarray) -> float:
  """From the nearly closed to the nearly widest of a clip's [n] frames."""
  return float(np.percentile(opening, 95) - np.percentile(opening, 10))


def at_onsets(opening: np.ndarray, said: list) -> list[float]:
  """The least opening around each onset, above the clip's nearly closed."""
  closed = np.percentile(opening, 10)
  starts = [int(start) for word, start, _ in said if word in _CLOSED]
  return [opening[max(0, i - 1) : i + 2].min() - closed for i in starts]


def main(argv):
  """Prints a line for each generator."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  for checkpoint in _CHECKPOINTS.value:
    drawer = Drawer(_DATA.value, checkpoint)
    spreads, means, onsets = [], [], []
    for clip in range(len(drawer.split)):
      said = drawer.said(clip, _ALIGN.value)
      pair = [
        mouth_measure.mouth_opening(frames)
        for frames in (
          dataset.decode_frames(drawer.split[clip]),
          drawer.frames(clip, clip),
        )
      ]
      spreads.append([spread(x) for x in pair])
      means.append([x.mean() for x in pair])
      onsets += zip(*(at_onsets(x, said) for x in pair), strict=True)
    real, drawn = np.mean(spreads, axis=0)
    print(
      f"{checkpoint}: range {drawn / real:.2f} of the truth's; mean opening "
      "{1:.2f}, truth {0:.2f}; ".format(*np.mean(means, axis=0))
      + "at {} onsets of b and p {:.3f}, truth {:.3f}".format(
        len(onsets), *np.mean(onsets, axis=0)[::-1]
      ),
      flush=True,
    )


if __name__ == "__main__":
  app.run(main)
