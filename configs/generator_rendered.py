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
    # Many faces at a time, one frame of each: BatchNorm sees few otherwise.
    config.data.batch_size = 16
    config.loss.frames_before_sync = 1
    config.train.num_steps = 1_000
    config.loss.sync_from_step = config.train.get_ref("num_steps") * 9 // 10
    config.train.eval_every_steps = 450
    config.train.save_every_steps = 50
    config.eval.batches = 2
  return config
