r"""Stage 1 on GRID speaker 1 (749 training clips of 3 s).

  python -m launch.train --config=configs/expert_grid.py:small \
    --config.data.dir=DATA_DIR --workdir=DIR

Windows without a word are left out, and wrong faces are at least 3 frames away.
Results: docs/RESULTS.md.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  return common.grid_expert(size)
