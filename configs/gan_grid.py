r"""Stage 2 on GRID speaker 1 with the quality discriminator.

  python -m launch.train --config=configs/gan_grid.py:small \
    --config.data.dir=DATA_DIR --config.expert_checkpoint=DIR --workdir=DIR

Results: docs/RESULTS.md.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  return common.grid_generator(common.gan(size), size)
