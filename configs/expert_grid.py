r"""Stage 1 on GRID speaker 1 (749 training clips of 3 s).

  python -m launch.train --config=configs/expert_grid.py:small \
    --config.data.dir=DATA_DIR --workdir=DIR

GRID's clips begin and end in silence: 42 % of windows hold no word and cannot
tell in-sync from off-sync, so training leaves them out, and takes wrong faces
at least 3 frames away.  Results: README.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  config = common.expert(size)
  config.windows.speech_only = True
  config.windows.min_negative_distance = 3
  config.optimizer.learning_rate = 1e-3
  if size != "tiny":
    config.train.num_steps = 900 if size == "small" else 20_000
    # At a constant rate, val figures jump by 0.1 from one evaluation to the
    # next.
    config.optimizer.decay_steps = config.train.get_ref("num_steps")
    config.train.eval_every_steps = 150 if size == "small" else 1_000
    config.train.save_every_steps = config.train.eval_every_steps
    config.train.log_every_steps = 25
    config.eval.batches = 8
  return config
