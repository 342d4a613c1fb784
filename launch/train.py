r"""Trains one stage; run again with the same flags, it goes on.

  python -m launch.train --config=configs/expert_grid.py:small \
    --config.data.dir=DATA_DIR --workdir=runs/expert
  python -m launch.train --config=configs/gan_grid.py:small \
    --config.data.dir=DATA_DIR --config.expert_checkpoint=runs/expert \
    --workdir=runs/gan

Any field of the config can be set: --config.data.batch_size=32.
"""

import sys

import cv2
from absl import app, flags, logging
from ml_collections import config_flags

from w2l_jax import (
  checkpoints,
  dataset,
  train_expert,
  train_generator,
  train_loop,
)

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Experiment, from configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder for checkpoints, figures and samples."
)
flags.mark_flags_as_required(["config", "workdir"])

_STAGES = {
  "expert": train_expert.train_and_evaluate,
  "generator": train_generator.train_and_evaluate,
}


def main(argv):
  """Trains the stage that the config names."""
  logging.set_verbosity(logging.WARNING)  # Orbax and TFDS tell every step.
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  cv2.setNumThreads(1)  # Grain's threads decode in parallel.
  config = _CONFIG.value
  if not config.data.dir:
    sys.exit(
      "error: config.data.dir is not set: give the --output of "
      "launch.prepare_data, --config.data.dir=DIR"
    )
  try:
    _STAGES[config.stage](config, _WORKDIR.value)
  except (
    checkpoints.CheckpointError,
    dataset.DatasetError,
    train_loop.TrainingError,
    ValueError,
  ) as e:
    sys.exit(f"error: {e}")


if __name__ == "__main__":
  app.run(main)
