r"""Stage 2 on GRID speaker 1 without adversarial loss.

  python -m launch.train --config=configs/generator_grid.py:small \
    --config.data.dir=DATA_DIR --config.expert_checkpoint=DIR --workdir=DIR
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  return common.grid_generator(common.generator(size), size)
