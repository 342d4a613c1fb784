r"""Stage 2 on the rendered corpus, within a demo's minutes on a CPU.

  python -m launch.demo

trains it; or, on a corpus of one's own (launch.render_corpus), launch.train.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  config = common.grid_generator(common.generator(size), size)
  if size == "small":
    config.image_size = 48
    config.data.batch_size = 8
    config.train.num_steps = 600
    config.train.eval_every_steps = 200
    config.train.save_every_steps = 50
    config.eval.batches = 4
  return config
