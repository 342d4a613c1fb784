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
    # Faces first: many at a time, one frame of each.  Then mouths, from the
    # expert; L1 of whole faces alone teaches them nothing in these minutes
    # (correlation with the true opening 0.08 after 400 steps).
    config.data.batch_size = 16
    config.loss.frames_before_sync = 1
    config.loss.mouth_weight = 1.0
    config.train.num_steps = 700
    config.loss.sync_from_step = 150
    config.loss.windows_with_sync = 4
    config.loss.sync_weight_initial = config.loss.sync_weight = 0.003
    # The expert hears well by now, better than what these minutes make of its
    # ears (0.82 in place of 0.75), and hears a window for its middle frame.
    config.speech_encoder_init = "expert"
    config.speech_encoder_frozen = True
    config.windows.frame_mel_offset = config.windows.inference_mel_offset = -2
    # 0.79 in place of 0.72: the input's mouth does not show through.
    config.inference.reference = "first"
    config.train.eval_every_steps = 350
    config.train.save_every_steps = 50
    config.eval.batches = 2
  return config
