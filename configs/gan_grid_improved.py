r"""Stage 2 on GRID speaker 1 by the improved recipe, with the GAN.

  python -m launch.train --config=configs/gan_grid_improved.py:small \
    --config.data.dir=DATA_DIR --config.expert_checkpoint=DIR --workdir=DIR

The expert is configs/expert_grid_contrastive.py's.  What differs from
configs/gan_grid.py: common.improved.  launch.results_grid compares them.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  config = common.grid_generator(common.gan(size), size)
  return common.improved(config, size)
