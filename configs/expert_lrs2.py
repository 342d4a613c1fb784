r"""Stage 1 on LRS2, as the original trains it.

  python -m launch.train --config=configs/expert_lrs2.py \
    --config.data.dir=DATA_DIR --workdir=DIR

Expect what users of the original report: the loss stays at 0.69 for some
150 000 steps and then falls; about 0.25 on val is the original's aim.  Not yet
run here.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  return common.faithful(common.expert(size))
