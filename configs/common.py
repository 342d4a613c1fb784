"""What the experiments share.  Each config file changes this and says why.

Config arguments, after a colon (--config=configs/expert_grid.py:small):
  (none)  the full-size networks
  small   a quarter of the channels: trains on a CPU
  tiny    a few channels and 24-pixel faces: for tests
"""

import ml_collections
from ml_collections.config_dict import placeholder

SIZES = ("", "small", "tiny")


def base(stage: str, size: str) -> ml_collections.ConfigDict:
  """Returns the fields of every experiment.

  At the original's values but for inference_mel_offset, see `faithful`.

  Args:
    stage: "expert" or "generator".
    size: one of SIZES.

  Raises:
    ValueError: if `size` is another word.
  """
  if size not in SIZES:
    raise ValueError(
      f"the config argument is {size!r}, expected one of {SIZES[1:]} or none"
    )
  config = ml_collections.ConfigDict()
  config.stage = stage
  config.seed = 0
  config.image_size = 24 if size == "tiny" else 96
  config.width = {"": 1.0, "small": 0.25, "tiny": 1 / 32}[size]
  config.channel_order = "bgr"  # As OpenCV reads; "rgb" turns it round.
  # BatchNorm's variance for use: "biased" is what training normalises by,
  # "unbiased" is PyTorch's.
  config.running_variance = "biased"
  # "bfloat16": of the computation alone; params, BatchNorm's statistics, losses
  # and the optimiser stay in float32.
  config.compute_dtype = "float32"
  # Computes the networks' inner values anew for the gradient: less memory.
  config.remat = False
  # Weights to start from: a workdir of the same stage or a file of weights.
  # init_optimizer also takes Adam's state from there.
  config.init_checkpoint = placeholder(str)
  config.init_optimizer = False

  config.data = dict(
    dir=placeholder(str),  # --output of launch.prepare_data
    # Which training clips: "all"; "judge", 150 of them, for an expert that is
    # to judge what the "rest" taught.
    part="all",
    batch_size=64,
    num_threads=2,
    num_workers=0,
    # Of each split's decoded pictures, in each process and worker; a picture of
    # 96 pixels takes 28 kB, so that GRID's speaker 1 fits in 2.
    cache_gb=2.0,
    # Whether the whole set lies decoded on every device, and windows are
    # gathered there: the same batches, without a loader.
    on_device=False,
  )
  config.windows = dict(
    frames=5,
    mel_columns=16,
    # Frame f's own mel window begins at frame f - 1 in training; at use, at
    # frame f in the original, which released weights expect.
    frame_mel_offset=-1,
    inference_mel_offset=-1,
    min_negative_distance=1,
    min_reference_distance=1,
    speech_only=False,
    # Of GRID's windows, 99 % of those within words and 3 % of those without
    # any have a mean mel above this.
    speech_threshold=-2.5,
    windows_per_clip=1,  # more for the contrastive loss
  )
  config.optimizer = dict(
    learning_rate=1e-4,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    decay_steps=0,  # 0: a constant rate, the original's
    clip_norm=0.0,  # 0: gradients as they are, the original's
    warmup_steps=0,
  )
  config.eval = dict(seed=1, batches=8, two_way_distance=5)
  config.train = dict(
    num_steps=1_000_000,
    # A batch is worked through in so many parts: less memory, the same
    # gradients, but BatchNorm normalises by a part.
    microbatches=1,
    log_every_steps=50,
    eval_every_steps=10_000,
    save_every_steps=1_000,
    keep=3,  # the newest; the best by best_metric is kept beside them
    best_metric="eval/two_way_accuracy" if stage == "expert" else "eval/l1",
    best_mode="max" if stage == "expert" else "min",
  )
  return config


def expert(size: str) -> ml_collections.ConfigDict:
  """Returns stage 1 as the original has it (color_syncnet_train.py)."""
  config = base("expert", size)
  # "contrastive": every window's speech must find its faces among the
  # windows_per_clip windows of its clip.  Where its temperature begins: CLIP's.
  config.loss = dict(kind="cosine_bce", temperature=0.07)
  # 1402 batches of 64 are the original's evaluation; LRS2's val split fills
  # fewer.
  config.eval.batches = 100
  return tiny(config) if size == "tiny" else config


def generator(size: str) -> ml_collections.ConfigDict:
  """Returns stage 2 without adversarial loss (wav2lip_train.py)."""
  config = base("generator", size)
  config.expert_checkpoint = placeholder(str)  # a workdir of stage 1
  # "batch" is the original, which never puts the expert in eval mode.
  config.expert_batch_norm = "running"
  config.data.batch_size = 16
  config.discriminator_optimizer = dict(config.optimizer)
  config.discriminator_init = "torch"
  config.init_discriminator = placeholder(str)  # as init_checkpoint
  # "expert": the generator begins with the frozen expert's speech encoder.
  # Frozen, it learns nothing more, nor do its running statistics.
  config.speech_encoder_init = "torch"
  config.speech_encoder_frozen = False
  # Moving average of the generator's params, some 1 / (1 - decay) steps long;
  # 0: none.  eval.ema: evaluations of the run judge by it.
  config.ema_decay = 0.0
  config.eval.ema = False
  config.loss = dict(
    sync_weight_initial=0.0,
    sync_weight=0.01,
    sync_on_below=0.75,
    # The expert rests before it.  From it on, windows_with_sync of a batch's
    # windows are drawn whole; 0: all.  Of the others frames_before_sync frames
    # are drawn: other windows teach more than the same one's next frames.
    sync_from_step=0,
    frames_before_sync=5,
    windows_with_sync=0,
    # The L1 loss is of whole frames plus mouth_weight times that of the mouth's
    # region, over 1 + mouth_weight; 0 is the original's.
    mouth_weight=0.0,
    # "initial": a restart begins again with sync_weight_initial, as the
    # original's does.
    sync_weight_on_restart="kept",
    adversarial_weight=0.0,
    adversarial_form="non_saturating",  # "saturating" is the paper's.
    adversarial_from_step=0,  # the discriminator rests before it
  )
  # How launch.lipsync makes a video, unless its flags say otherwise; what each
  # word means: w2l_jax.lip_sync_options.Options.
  config.inference = dict(
    ending="padded",
    loop="restart",
    no_face="pass",
    paste="feathered",
    reference="own",
  )
  # The original's 701 and 302 go round a val split that is smaller.
  config.eval.batches = 100
  config.train.eval_every_steps = 3_000
  return tiny(config) if size == "tiny" else config


def gan(size: str) -> ml_collections.ConfigDict:
  """Returns stage 2 with adversarial loss (hq_wav2lip_train.py)."""
  config = generator(size)
  config.optimizer.b1 = config.discriminator_optimizer.b1 = 0.5
  config.loss.sync_weight = 0.03
  config.loss.adversarial_weight = 0.07
  return config


def faithful(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Sets what the original does although better is known.

  BatchNorm collects PyTorch's variance; in stage 2 the expert's normalises by
  the generated windows themselves, and at use a frame's mel window begins one
  frame later than in training.
  """
  config.running_variance = "unbiased"
  if config.stage == "generator":
    config.expert_batch_norm = "batch"
    config.windows.inference_mel_offset = 0
  return config


def grid_expert(size: str) -> ml_collections.ConfigDict:
  """Returns stage 1 on GRID speaker 1, whose clips end in silence."""
  config = expert(size)
  # 42 % of GRID's windows hold no word and cannot tell in-sync from off-sync.
  config.windows.speech_only = True
  config.windows.min_negative_distance = 3
  config.optimizer.learning_rate = 1e-3
  if size != "tiny":
    config.train.num_steps = 900 if size == "small" else 20_000
    # At a constant rate, val figures jump by 0.1 from one evaluation to the
    # next.
    config.optimizer.decay_steps = config.train.get_ref("num_steps")
    config.train.eval_every_steps = 150 if size == "small" else 1_000
    config.train.save_every_steps = config.train.eval_every_steps
    config.train.log_every_steps = 25
    config.eval.batches = 8
  return config


def grid_generator(
  config: ml_collections.ConfigDict, size: str
) -> ml_collections.ConfigDict:
  """Sets stage 2's schedule on GRID speaker 1."""
  # Adam moves a weight by at most its rate a step; at the original's 1e-4 the
  # last layer alone needs thousands of steps to reach the colours of skin.
  config.optimizer.learning_rate = 2e-3 if size else 5e-4
  config.optimizer.b1 = 0.9
  # Once L1 was at 0.03, the gradients of the three losses by the generator's
  # params had norms of 0.07 (L1), 25 to 140 (sync) and 0.2 to 5 (adversarial):
  # at the original's weights the sync loss alone is some 20 times the L1 loss,
  # and what it then draws fools the expert and spoils the picture (PSNR of the
  # lower half fell from 25.5 to 22.4 in 200 steps).  With these weights no loss
  # outweighs L1, and with the clipping no single window takes over a step.
  config.loss.sync_weight = 0.001
  config.optimizer.clip_norm = 0.25
  # At the start, faces are none yet and the expert's gradient is noise.
  config.loss.sync_on_below = 8.0
  if config.loss.adversarial_weight:
    # At 0.02 from half of the steps on, colours went grey.
    config.loss.adversarial_weight = 0.005
    config.discriminator_init = "he"
  if size != "tiny":
    if size == "small":
      config.data.batch_size = 4
    config.train.num_steps = 1_800 if size == "small" else 20_000
    # References: these follow a --config.train.num_steps.
    num_steps = config.train.get_ref("num_steps")
    config.optimizer.decay_steps = num_steps
    if config.loss.adversarial_weight:
      config.loss.adversarial_from_step = num_steps * 3 // 4
      # At a constant rate it wins as the generator's own rate goes to 0.
      config.discriminator_optimizer.decay_steps = num_steps // 4
    config.train.eval_every_steps = 200 if size == "small" else 1_000
    config.train.save_every_steps = config.train.eval_every_steps
    config.train.log_every_steps = 25
    config.eval.batches = 16
  return config


def contrastive(
  config: ml_collections.ConfigDict, size: str, windows_per_clip: int
) -> ml_collections.ConfigDict:
  """Sets the contrastive loss in stage 1; figures are the demo's."""
  config.loss.kind = "contrastive"
  config.windows.windows_per_clip = 2 if size == "tiny" else windows_per_clip
  config.windows.min_negative_distance = 1
  config.optimizer.clip_norm = 1.0
  if size != "tiny":
    # The small one stays at chance without; full width was only tried with it.
    config.optimizer.warmup_steps = 60
  if size == "small":
    # Two-way accuracy on val 0.93 in place of 0.90 at 1e-3.
    config.optimizer.learning_rate = 2e-3
  return config


def expert_led(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Sets stage 2 for a contrastive expert; figures are the demo's."""
  # Faces first: many at a time, one frame of each.  Then mouths, from the
  # expert; L1 of whole faces alone teaches them nothing in a demo's minutes
  # (correlation with the true opening 0.08 after 400 steps).
  config.loss.frames_before_sync = 1
  config.loss.mouth_weight = 1.0
  config.loss.sync_weight_initial = config.loss.sync_weight = 0.003
  # The expert hears well by now, better than what these minutes make of its
  # ears (0.82 in place of 0.75), and hears a window for its middle frame.
  config.speech_encoder_init = "expert"
  config.speech_encoder_frozen = True
  config.windows.frame_mel_offset = config.windows.inference_mel_offset = -2
  # 0.79 in place of 0.72: the input's mouth does not show through.
  config.inference.reference = "first"
  return config


def improved(
  config: ml_collections.ConfigDict, size: str
) -> ml_collections.ConfigDict:
  """Sets stage 2 on GRID by what made the demo's generator better, and more.

  What each part is worth on GRID: docs/RESULTS.md (launch.results_grid).
  """
  config = expert_led(config)
  # A tenth of the demo's, whose mouths had to be had in minutes.  At 0.003 and
  # 0.001 the generator draws what its own expert likes, the independent judge
  # and L1 less, after 600 steps and after 1 800 (docs/RESULTS.md).
  config.loss.sync_weight_initial = config.loss.sync_weight = 0.0003
  # The mouth's own next frames would show it what to draw: at one frame, mouths
  # follow the truth by 0.20 in place of 0.46, though the judge likes it more.
  config.windows.min_reference_distance = 5
  if size != "tiny":
    config.data.batch_size = 12 if size == "small" else 32
    config.loss.windows_with_sync = config.data.batch_size // 4
    config.loss.sync_from_step = config.train.get_ref("num_steps") // 4
  return config


def tiny(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Shrinks a run to seconds, for tests."""
  config.data.batch_size = 4
  config.eval.batches = 2
  config.train.update(
    dict(
      num_steps=2,
      log_every_steps=1,
      eval_every_steps=2,
      save_every_steps=2,
    )
  )
  return config
