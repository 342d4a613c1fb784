r"""Stage 1 on GRID speaker 1 with the contrastive loss.

  python -m launch.train --config=configs/expert_grid_contrastive.py:small \
    --config.data.dir=DATA_DIR --workdir=DIR

As configs/expert_grid.py, but every window's speech must find its own faces
among windows of the same clip.  launch.results_grid compares them.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  # Of the 41 windows with speech that GRID's clips have.
  return common.contrastive(common.grid_expert(size), size, windows_per_clip=8)
