r"""Stage 2 on LRS2 without adversarial loss, as the original trains it.

  python -m launch.train --config=configs/generator_lrs2.py \
    --config.data.dir=DATA_DIR --config.expert_checkpoint=DIR --workdir=DIR

Expect, from the original: a validation sync loss of about 0.2.  Not yet run
here.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  return common.faithful(common.generator(size))
