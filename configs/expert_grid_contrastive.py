r"""Stage 1 on GRID speaker 1 with the contrastive loss.

  python -m launch.train --config=configs/expert_grid_contrastive.py:small \
    --config.data.dir=DATA_DIR --workdir=DIR

As configs/expert_grid.py, but every window's speech must find its own faces
among windows of the same clip.  launch.results_grid compares them.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  config = common.grid_expert(size)
  config.loss.kind = "contrastive"
  # GRID's clips have some 43 windows with speech, 16 of which fit in most.
  config.windows.windows_per_clip = 2 if size == "tiny" else 8
  # Neighbours too: they are the hard ones.
  config.windows.min_negative_distance = 1
  config.optimizer.clip_norm = 1.0
  # Without the rise it stays at chance.
  config.optimizer.warmup_steps = 60 if size else 500
  if size == "small":
    config.optimizer.learning_rate = 2e-3
  return config
