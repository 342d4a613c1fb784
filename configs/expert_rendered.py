r"""Stage 1 on the rendered corpus, within a demo's minutes on a CPU.

  python -m launch.demo

trains it; or, on a corpus of one's own (launch.render_corpus), launch.train.
"""

from configs import common


def get_config(size: str = ""):
  """Returns the config; `size` is one of common.SIZES."""
  config = common.expert(size)
  config.windows.speech_only = True
  config.windows.min_negative_distance = 3
  config.optimizer.learning_rate = 1e-3
  if size != "tiny":
    config.image_size = 48 if size == "small" else 96
    config.train.num_steps = 400 if size == "small" else 10_000
    config.optimizer.decay_steps = config.train.get_ref("num_steps")
    config.train.eval_every_steps = 100 if size == "small" else 1_000
    config.train.save_every_steps = 50 if size == "small" else 1_000
    config.train.log_every_steps = 20
    config.eval.batches = 8
  return config
