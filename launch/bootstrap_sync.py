r"""Trains an expert, filters the set by it, and trains another on what is left.

  python -m launch.bootstrap_sync --config=configs/expert_grid.py:small \
    --config.data.dir=data/mine --workdir=runs/bootstrap

Clips out of sync keep an expert at 0.69; even a poor expert finds them.
Each round trains in WORKDIR/expert_N on WORKDIR/set_N's records, the first on
the set that is given; the last expert judges nothing.  Run again, it goes on.
"""

import sys

import cv2
from absl import app, flags, logging
from ml_collections import config_flags

from data_prep import bootstrap, prepare
from w2l_jax import checkpoints, dataset, train_loop

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Experiment of stage 1, from configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the experts and the filtered sets."
)
_ROUNDS = flags.DEFINE_integer(
  "rounds", 1, "How often the set is filtered.", lower_bound=1
)
_MISMATCHED = flags.DEFINE_float(
  "max_mismatched",
  0.01,
  "Share of records with another one's sound that may pass.",
  lower_bound=0.0,
  upper_bound=1.0,
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
  """Runs it; errors are one sentence."""
  logging.set_verbosity(logging.ERROR)
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  cv2.setNumThreads(1)
  if _CONFIG.value.stage != "expert" or not _CONFIG.value.data.dir:
    sys.exit(
      "error: --config is to be one of stage 1, with --config.data.dir=DIR, "
      "the --output of launch.prepare_data"
    )
  try:
    bootstrap.run(
      _CONFIG.value, _WORKDIR.value, _ROUNDS.value, _MISMATCHED.value
    )
  except KeyboardInterrupt:
    sys.exit("\ninterrupted: the same command goes on where it was")
  except (
    checkpoints.CheckpointError,
    dataset.DatasetError,
    prepare.PrepareError,
    train_loop.TrainingError,
    ValueError,
  ) as e:
    sys.exit(f"error: {e}")


if __name__ == "__main__":
  app.run(main)
