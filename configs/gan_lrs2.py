r"""Stage 2 on LRS2 with the quality discriminator, as the original trains it.

  python -m launch.train --config=configs/gan_lrs2.py \
    --config.data.dir=DATA_DIR --config.expert_checkpoint=DIR --workdir=DIR

Not yet run here.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  return common.faithful(common.gan(size))
