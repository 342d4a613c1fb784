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
    config = common.expert_led(config)
    config.data.batch_size = 16
    config.train.num_steps = 700
    config.loss.sync_from_step = 150
    config.loss.windows_with_sync = 4
    config.train.eval_every_steps = 350
    config.train.save_every_steps = 50
    config.eval.batches = 2
  return config
