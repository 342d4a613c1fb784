r"""Trains one stage; run again with the same flags, it goes on.

  python -m launch.train --config=configs/expert_grid.py:small \
    --config.data.dir=DATA_DIR --workdir=runs/expert
  python -m launch.train --config=configs/gan_grid.py:small \
    --config.data.dir=DATA_DIR --config.expert_checkpoint=runs/expert \
    --workdir=runs/gan

Any field of the config can be set: --config.data.batch_size=32.
"""

import os
import sys

import cv2
import jax
from absl import app, flags, logging
from ml_collections import config_flags

from launch import distributed, flag_parsing
from w2l_jax import (
  checkpoints,
  dataset,
  stop_requests,
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
  try:
    distributed.initialize()
  except distributed.DistributedError as e:
    sys.exit(f"error: {e}")
  # From here on, for JAX's own handler of SIGTERM is in place now.
  with stop_requests.collected(leave_at_once=True), distributed.ending():
    _train()


def _train() -> None:
  """Trains, or leaves with one sentence."""
  # A restart need not compile again.  JAX_COMPILATION_CACHE_DIR names another.
  if not jax.config.jax_compilation_cache_dir:
    cache = os.path.join(os.path.abspath(_WORKDIR.value), "compilation_cache")
    jax.config.update("jax_compilation_cache_dir", cache)
  config = _CONFIG.value
  try:
    data_dir = config.data.dir
  except OSError as e:  # A config file that could not be read tells only here.
    sys.exit(flag_parsing.config_error(e))
  if not data_dir:
    sys.exit(
      "error: config.data.dir is not set: give the --output of "
      "launch.prepare_data, --config.data.dir=DIR"
    )
  try:
    state = _STAGES[config.stage](config, _WORKDIR.value)
  except (
    checkpoints.CheckpointError,
    dataset.DatasetError,
    train_loop.TrainingError,
    ValueError,
  ) as e:
    sys.exit(f"error: {e}")
  # Asked to stop before a step was made, it has said so.
  if jax.process_index() == 0 and int(state.step):
    print(
      f"{_WORKDIR.value}: {int(state.step)} steps; checkpoints, metrics.jsonl "
      "and tensorboard are there"
    )


if __name__ == "__main__":
  app.run(main, flags_parser=flag_parsing.parse)
