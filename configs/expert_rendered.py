r"""Stage 1 on the rendered corpus, within a demo's minutes on a CPU.

  python -m launch.demo

trains it; or, on a corpus of one's own (launch.render_corpus), launch.train.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  config = common.grid_expert(size)
  # The cosine BCE was still at chance after 400 steps.  After 200 steps two-way
  # accuracy was 0.91 with 16 windows of a clip, 0.86 with 8; after 400 steps
  # 0.92 and 0.93.
  config = common.contrastive(config, size, windows_per_clip=16)
  if size == "small":
    config.image_size = 48
    config.train.num_steps = 350
    config.train.eval_every_steps = 175
    config.train.save_every_steps = 50
    config.train.log_every_steps = 20
  return config
