"""Stage 2: the generator learns to draw the mouth that says the speech.

With the quality discriminator (the original's hq_wav2lip_train.py) or, where
config.loss.adversarial_weight is 0, without it (wav2lip_train.py).  The trained
expert enters the step as an argument: it is neither differentiated nor donated.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from w2l_jax import (
  checkpoints,
  dataset,
  inference,
  input_pipeline,
  losses,
  metrics,
  network_inputs,
  samples,
  sharding,
  train_expert,
  train_loop,
)
from w2l_jax.accumulation import accumulated
from w2l_jax.evaluation import image_metrics
from w2l_jax.models import QualityDiscriminator, layers
from w2l_jax.train_state import (
  GeneratorTrainState,
  NetworkState,
  init_network,
  make_optimizer,
)

# Of a sample grid.
_GRID_ROWS = 8


def make_discriminator(
  config, dtype: jnp.dtype | None = None
) -> QualityDiscriminator:
  """Returns the discriminator that a config, or a checkpoint's, describes."""
  return QualityDiscriminator(
    width=config["width"],
    image_size=config["image_size"],
    dtype=dtype,
    initializer=config.get("discriminator_init", "torch"),
  )


def discriminator_inputs(config) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Returns the shape of (lower_half,) for one frame."""
  size = config["image_size"]
  return (jax.ShapeDtypeStruct((1, size // 2, size, 3), jnp.float32),)


def _optimizers(config):
  return (
    make_optimizer(**config.optimizer),
    make_optimizer(**config.discriminator_optimizer),
  )


def create_state(config, rng: jax.Array) -> GeneratorTrainState:
  """Initialises stage 2's state."""
  generator_rng, discriminator_rng = jax.random.split(rng)
  generator_tx, discriminator_tx = _optimizers(config)
  generator = init_network(
    inference.make_model(config),
    generator_rng,
    generator_tx,
    *inference.model_inputs(config),
  )
  discriminator = None
  if config.loss.adversarial_weight:
    discriminator = init_network(
      make_discriminator(config),
      discriminator_rng,
      discriminator_tx,
      *discriminator_inputs(config),
    )
  return GeneratorTrainState(
    step=jnp.zeros((), jnp.int32),
    generator=generator,
    discriminator=discriminator,
    sync_weight=jnp.float32(config.loss.sync_weight_initial),
    ema_params=jax.tree.map(jnp.copy, generator.params)
    if config.ema_decay
    else None,
  )


def _expert_sync_losses(
  config, expert_config, dtype=None, remat: bool = False
) -> Callable:
  """Returns sync_losses(expert_variables, batch, frames) -> values [B].

  The loss of each window of frames.  Which of them count: `_judged`.

  Args:
    config: of stage 2.
    expert_config: that the expert was trained with.
    dtype, remat: as for train_expert.make_model.
  """
  model = train_expert.make_model(expert_config, dtype=dtype, remat=remat)
  contrastive = train_expert.is_contrastive(expert_config)
  frame_mel_offset = config["windows"]["frame_mel_offset"]
  # "batch" is the original: it never calls eval(), so BatchNorm normalises by
  # the generated windows themselves.
  mode = (
    {"train": True, "mutable": ["batch_stats"]}
    if config["expert_batch_norm"] == "batch"
    else {"train": False}
  )

  def sync_losses(variables, batch, frames):
    out = train_expert.embed(
      model.apply, expert_config, variables, batch, frames, **mode
    )
    # With mutable collections `apply` also returns them; they are dropped.
    audio, face = out[0] if "mutable" in mode else out
    if contrastive:
      # Speech a frame or two before or after must not do as well.
      shifts = np.arange(batch["frame_mels"].shape[1]) + frame_mel_offset
      near = network_inputs.fold_time(batch["frame_mels"][:, shifts != 0])
      out = model.apply(
        variables,
        network_inputs.mel_image(near),
        method="embed_audio",
        **mode,
      )
      near_audio = out[0] if "mutable" in mode else out
      return losses.contrastive_sync_losses(
        jnp.concatenate([audio, near_audio]),
        face,
        variables["params"]["logit_scale"],
      )
    return losses.sync_losses(audio, face)

  return sync_losses


def _judged(expert_config) -> Callable:
  """Returns judged(mel [B, M, F]) -> [B], 1 for windows that the expert judges.

  An expert that never saw silent windows is not asked about them.
  """
  spec = train_expert.window_spec(expert_config)

  def judged(mel):
    if not spec.speech_only:
      return jnp.ones(len(mel), mel.dtype)
    loudness = jnp.mean(mel, axis=(1, 2))
    return (loudness > spec.speech_threshold).astype(mel.dtype)

  return judged


def _float_frames(batch, key: str, config) -> jax.Array:
  """Frames [B, T, S, S, 3] of a batch as the networks take them, folded."""
  return network_inputs.fold_time(
    network_inputs.to_float(batch[key], config["channel_order"])
  )


def generate(apply: Callable, config, variables, batch, **kwargs):
  """Applies the generator to a batch; frames are [B * T, S, S, 3].

  Returns:
    (real frames in [0, 1], what `apply` returns).
  """
  real = _float_frames(batch, "frames", config)
  reference = _float_frames(batch, "other", config)
  mels = network_inputs.mel_image(network_inputs.fold_time(batch["frame_mels"]))
  faces = network_inputs.generator_faces(real, reference)
  return real, apply(variables, mels, faces, **kwargs)


def reconstruction_loss(fake, real, mouth_weight: float) -> tuple:
  """L1 of whole frames, and of the mouth's region once more.

  Args:
    fake: [N, S, S, 3] in [0, 1].
    real: the same.
    mouth_weight: of the region's mean beside the whole's; 0 is the original.

  Returns:
    (loss, {name: its parts}).
  """
  found = {"loss_l1": losses.l1_loss(fake, real)}
  if not mouth_weight:
    return found["loss_l1"], found
  found["loss_l1_mouth"] = losses.l1_loss(
    *(network_inputs.mouth_region(frames) for frames in (fake, real))
  )
  total = found["loss_l1"] + mouth_weight * found["loss_l1_mouth"]
  return total / (1.0 + mouth_weight), found


def _whole_windows(config) -> int:
  """How many of a part's windows are drawn whole where the expert takes part.

  Raises:
    ValueError: if the parts do not divide.
  """
  parts = config["train"]["microbatches"]
  windows = config["loss"]["windows_with_sync"] or config["data"]["batch_size"]
  if windows % parts:
    raise ValueError(
      f"config.loss.windows_with_sync {windows} does not divide by "
      f"config.train.microbatches {parts}"
    )
  return windows // parts


def _drawn_part(config, sync: bool) -> Callable:
  """Returns drawn_part(batch) -> (frames, windows): what a train step draws.

  `frames` is a batch of windows of one frame, all that are drawn; first come
  those of `windows`, the windows that are drawn whole.
  """
  loss = config["loss"]
  for field, lowest, highest in (
    ("frames_before_sync", 1, config["windows"]["frames"]),
    ("windows_with_sync", 0, config["data"]["batch_size"]),
  ):
    if not lowest <= loss[field] <= highest:
      raise ValueError(
        f"config.loss.{field} is {loss[field]}, expected {lowest} to {highest}"
      )

  count = _whole_windows(config) if sync else 0

  def drawn_part(batch: dict) -> tuple[dict, dict]:
    frames = {
      key: jnp.concatenate(
        [
          network_inputs.fold_time(part)[:, None]
          for part in (
            batch[key][:count],
            batch[key][count:, : loss["frames_before_sync"]],
          )
        ]
      )
      for key in ("frames", "other", "frame_mels")
    }
    return frames, {key: value[:count] for key, value in batch.items()}

  return drawn_part


# Where the discriminator is sure, its loss's gradient by the logit vanishes; so
# small a one is nothing to Adam, whose epsilon is 1e-8, and still far above
# float32's smallest number.
_LEAST_LOGIT_GRADIENT = 1e-20


def opposed_gradients(
  judge: Callable, params, real: jax.Array, fake: jax.Array, form: str
) -> tuple:
  """What both sides of the game learn from some frames.

  The discriminator judges every frame by itself.  So what its own loss and the
  adversarial loss say of a generated frame differs by one number, the ratio of
  their gradients by the frame's logit, and one pass back through the
  discriminator serves both.

  Args:
    judge: judge(params, frames) -> logits [N, 1].
    params: the discriminator's.
    real, fake: [N, S, S, 3].
    form: of losses.generator_adversarial_loss.

  Returns:
    (gradients of the discriminator's loss by its params, gradient of the
    adversarial loss by `fake`, both losses as metrics).
  """
  fake_logits, fake_pull_back = jax.vjp(judge, params, fake)
  real_logits, real_pull_back = jax.vjp(lambda p: judge(p, real), params)
  adversarial, by_adversarial = jax.value_and_grad(
    losses.generator_adversarial_loss
  )(fake_logits, form)
  own, (by_real, by_fake) = jax.value_and_grad(
    losses.discriminator_loss, argnums=(0, 1)
  )(real_logits, fake_logits)
  by_fake = jnp.maximum(by_fake, _LEAST_LOGIT_GRADIENT)  # It is D(fake) / N.
  of_fake, fake_grad = fake_pull_back(by_fake)
  (of_real,) = real_pull_back(by_real)
  ratio = (by_adversarial / by_fake).reshape(-1, 1, 1, 1)
  terms = {"loss_adversarial": adversarial, "loss_discriminator": own}
  return jax.tree.map(jnp.add, of_real, of_fake), ratio * fake_grad, terms


def make_train_step(
  config, expert_config, adversarial: bool | None = None, sync: bool = True
) -> Callable:
  """Returns train_step(state, batch, frozen) -> (state, metrics).

  `frozen["expert"]` holds the expert's variables.

  Args:
    config: of stage 2.
    expert_config: that the expert was trained with.
    adversarial: whether the discriminator takes part; if not, it stays as it
      is and costs nothing.  None: if the config has one.
    sync: whether the expert takes part, on the batch's first
      config.loss.windows_with_sync windows; if not, it costs nothing.  Of the
      other windows the first config.loss.frames_before_sync frames are drawn.
  """
  if adversarial is None:
    adversarial = bool(config["loss"]["adversarial_weight"])
  dtype, remat = layers.compute_dtype(config), config["remat"]
  generator_apply = layers.training_apply(
    inference.make_model(config, dtype, remat), config["running_variance"]
  )
  discriminator = make_discriminator(config, dtype)
  generator_tx, discriminator_tx = _optimizers(config)
  sync_losses = _expert_sync_losses(
    config, expert_config, dtype=dtype, remat=remat
  )
  judged = _judged(expert_config)
  drawn_part = _drawn_part(config, sync)
  weight = config["loss"]["adversarial_weight"] if adversarial else 0.0
  form = config["loss"]["adversarial_form"]
  mouth_weight = config["loss"]["mouth_weight"]
  parts, ema_decay = config["train"]["microbatches"], config["ema_decay"]

  def judge(params, frames):
    return discriminator.apply(
      {"params": params}, network_inputs.lower_half(frames)
    )

  def train_step(state: GeneratorTrainState, batch: dict, frozen: dict):
    sync_weight = state.sync_weight if sync else 0.0
    if sync:
      # Of the batch, so that the mean of the parts' sync losses is the batch's.
      whole_mels = batch["mel"][: _whole_windows(config) * parts]
      judged_windows = jnp.maximum(jnp.sum(judged(whole_mels)), 1.0)

    def part_fn(batch_stats, part):
      part, whole = drawn_part(part)

      def draw(params):
        real, (fake, updates) = generate(
          generator_apply,
          config,
          {"params": params, "batch_stats": batch_stats},
          part,
          train=True,
          mutable=["batch_stats"],
        )
        return fake, (real, updates["batch_stats"])

      fake, pull_back, (real, new_stats) = jax.vjp(
        draw, state.generator.params, has_aux=True
      )
      grads, adversarial_grad, terms = {}, 0.0, {}
      if adversarial:
        grads["discriminator"], adversarial_grad, terms = opposed_gradients(
          judge, state.discriminator.params, real, fake, form
        )

      def loss_fn(fake):
        reconstruction, found = reconstruction_loss(fake, real, mouth_weight)
        loss = (1.0 - sync_weight - weight) * reconstruction
        if sync:
          shape = whole["frames"].shape
          values = sync_losses(
            frozen["expert"],
            whole,
            fake[: shape[0] * shape[1]].reshape(shape),
          )
          found["loss_sync"] = (
            jnp.sum(values * judged(whole["mel"])) * parts / judged_windows
          )
          loss += sync_weight * found["loss_sync"]
        return loss, found

      (loss, found), fake_grad = jax.value_and_grad(loss_fn, has_aux=True)(fake)
      (grads["generator"],) = pull_back(fake_grad + weight * adversarial_grad)
      terms |= found | {
        "loss": loss + weight * terms.get("loss_adversarial", 0.0)
      }
      return new_stats, (grads, terms)

    batch_stats, (grads, terms) = accumulated(
      part_fn, state.generator.batch_stats, batch, parts
    )
    discriminator_state = state.discriminator
    if adversarial:
      discriminator_state = discriminator_state.updated(
        grads["discriminator"], discriminator_tx, {}
      )
      terms |= {
        "discriminator_grad_norm": optax.tree.norm(grads["discriminator"]),
        "discriminator_param_norm": optax.tree.norm(discriminator_state.params),
      }
    generator_state = state.generator.updated(
      grads["generator"], generator_tx, batch_stats
    )
    ema_params = state.ema_params
    if ema_decay:
      ema_params = optax.incremental_update(
        generator_state.params, ema_params, 1.0 - ema_decay
      )
    # The norms of params are not finite as soon as any param is: such a state
    # is never saved.
    terms |= {
      "sync_weight": jnp.asarray(sync_weight),
      "grad_norm": optax.tree.norm(grads["generator"]),
      "param_norm": optax.tree.norm(generator_state.params),
    }
    new_state = GeneratorTrainState(
      step=state.step + 1,
      generator=generator_state,
      discriminator=discriminator_state,
      sync_weight=state.sync_weight,
      ema_params=ema_params,
    )
    return new_state, terms

  return train_step


def make_train_steps(config, expert_config) -> dict[int, Callable]:
  """Returns {first step of a phase: its train_step}.

  A program for each phase, not a `jax.lax.cond` in one: XLA's CPU backend
  computes the convolutions of a branch some twenty times slower.
  """
  loss = config["loss"]
  borders = {0, loss["sync_from_step"]}
  if loss["adversarial_weight"]:
    borders.add(loss["adversarial_from_step"])
  return {
    first: make_train_step(
      config,
      expert_config,
      adversarial=bool(loss["adversarial_weight"])
      and first >= loss["adversarial_from_step"],
      sync=first >= loss["sync_from_step"],
    )
    for first in sorted(borders)
  }


def make_eval_step(config, expert_config) -> Callable:
  """Returns eval_step(variables, batch, frozen) -> (figures, fake).

  Figures are {name: (values, mask)}, both [n]; fake frames are pictures, uint8
  [B, T, S, S, 3].
  Each figure of the generated frames stands beside the same figure of the
  reference frames copied, and the sync loss beside that of the real frames: a
  sync loss below real video's means that the expert was fooled.
  """
  model = inference.make_model(config)
  sync_losses = _expert_sync_losses(config, expert_config)
  judged = _judged(expert_config)

  def eval_step(variables: dict, batch: dict, frozen: dict):
    real, fake = generate(model.apply, config, variables, batch)
    copied = _float_frames(batch, "other", config)
    figures = {}
    for name, frames in (("", fake), ("_copied", copied)):
      lower = network_inputs.lower_half(frames)
      real_lower = network_inputs.lower_half(real)
      figures |= {
        f"l1{name}": image_metrics.l1(frames, real),
        f"lower_l1{name}": image_metrics.l1(lower, real_lower),
        f"lower_psnr{name}": image_metrics.psnr(lower, real_lower),
        f"lower_ssim{name}": image_metrics.ssim(lower, real_lower),
      }
    figures = {k: (v, jnp.ones_like(v)) for k, v in figures.items()}
    shape = batch["frames"].shape
    for name, frames in (("", fake), ("_real", real), ("_copied", copied)):
      values = sync_losses(frozen["expert"], batch, frames.reshape(shape))
      figures[f"loss_sync{name}"] = (values, judged(batch["mel"]))
    pictures = network_inputs.to_pictures(fake, config["channel_order"])
    return figures, pictures.reshape(shape)

  return eval_step


def make_evaluator(
  config, expert_config, split: dataset.Split, mesh
) -> Callable:
  """Returns evaluate(variables, frozen) -> (metrics, sample grid).

  On fixed windows, chosen by config.eval.seed; the grid's columns are
  reference, masked input, generated, ground truth.
  """
  eval_step = sharding.jit_eval_step(
    make_eval_step(config, expert_config), mesh
  )
  local_rows = sharding.local_rows(mesh, config["data"]["batch_size"])

  def evaluate(variables, frozen):
    found, grid = [], None
    for batch in input_pipeline.make_batches(
      split,
      train_expert.window_spec(config),
      "generator",
      seed=config["eval"]["seed"],
      batch_size=config["data"]["batch_size"],
      last_step=config["eval"]["batches"],
      local_rows=local_rows,
      num_threads=config["data"]["num_threads"],
    ):
      figures, fake = jax.device_get(
        eval_step(variables, sharding.global_batch(mesh, batch), frozen)
      )
      found.append(figures)
      if grid is None:
        real, reference, fake = (
          images[:_GRID_ROWS, images.shape[1] // 2]
          for images in (batch["frames"], batch["other"], fake[local_rows])
        )
        masked = network_inputs.mask_lower_half(real)
        grid = metrics.sample_grid([reference, masked, fake, real])
    means = {}
    for key in found[0]:
      values, mask = (
        np.concatenate([f[key][i] for f in found]) for i in (0, 1)
      )
      if not mask.sum():
        logging.warning(
          "%s: none of the %d evaluated windows has speech that the expert can "
          "judge: no sync loss; raise config.eval.batches",
          split.name,
          len(mask),
        )
        continue
      means[f"eval/{key}"] = float(losses.masked_mean(values, mask))
    return means, grid

  return evaluate


def _with_sync_weight(state: GeneratorTrainState, weight: float):
  """Replaces the weight, on the same devices of all processes."""
  weight = jax.make_array_from_process_local_data(
    state.sync_weight.sharding, np.float32(weight)
  )
  return state.replace(sync_weight=weight)


def switch_sync_weight(config) -> Callable:
  """Returns after_eval(state, metrics) -> state: the sync-weight rule.

  Once the validation sync loss is below config.loss.sync_on_below, the weight
  becomes config.loss.sync_weight; it never goes back (hq_wav2lip_train.py).
  """

  def after_eval(state: GeneratorTrainState, results: dict):
    # Absent where no evaluated window has speech.
    loss = results.get("eval/loss_sync", np.inf)
    if loss < config.loss.sync_on_below:
      return _with_sync_weight(state, config.loss.sync_weight)
    return state

  return after_eval


def restart_sync_weight(config) -> Callable:
  """Returns after_restore(state) -> state: config.loss.sync_weight_on_restart.

  The original keeps the weight in memory alone: its runs start again with the
  initial one until the next evaluation that passes.
  """
  word = config.loss.sync_weight_on_restart
  if word not in ("kept", "initial"):
    raise ValueError(
      f"config.loss.sync_weight_on_restart is {word!r}, expected 'kept' or "
      "'initial'"
    )

  def after_restore(state: GeneratorTrainState):
    if word == "kept":
      return state
    return _with_sync_weight(state, config.loss.sync_weight_initial)

  return after_restore


# What makes crops and mels mean the same to expert and generator.
_SHARED_WITH_EXPERT = (
  "image_size",
  "channel_order",
  "windows.frames",
  "windows.mel_columns",
  "preparation.detector",
  "preparation.crop_rule",
  "preparation.audio_padding",
)


def check_expert(config: dict, expert_config: dict, path: str) -> None:
  """Raises a ValueError if an expert does not fit a generator's config.

  Args:
    config: of stage 2, with its data's `preparation`.
    expert_config: of the expert, likewise.
    path: the expert's checkpoint, for the message.
  """
  if config["expert_batch_norm"] not in ("running", "batch"):
    raise ValueError(
      f"config.expert_batch_norm is {config['expert_batch_norm']!r}, expected "
      "'running' or 'batch'"
    )
  for field in _SHARED_WITH_EXPERT:
    ours, theirs = config, expert_config
    for name in field.split("."):
      ours, theirs = ours[name], theirs[name]
    if ours != theirs:
      raise ValueError(
        f"{path}: the expert was trained with {field} {theirs!r}, the "
        f"generator has {ours!r}; train one on data of the other's kind"
      )


def with_speech_encoder_of(expert_variables: dict, generator: NetworkState):
  """Returns the generator's state with the expert's speech encoder.

  The expert's has one residual block more: the last before its embedding is
  left out, and what would have gone into it goes on.
  """
  taken = {}
  for collection in ("params", "batch_stats"):
    ours = getattr(generator, collection)
    theirs = expert_variables[collection]["audio_encoder"]
    kept = len(ours["audio_encoder"]) - 2
    blocks = {
      f"block_{i}": theirs[f"block_{i if i < kept else i + 1}"]
      for i in range(len(ours["audio_encoder"]))
    }
    # Copies: the train step is given its state for good, but not the expert.
    taken[collection] = {
      **ours,
      "audio_encoder": jax.tree.map(jnp.copy, blocks),
    }
  return generator.replace(**taken)


def initial_state(
  config, begun: bool, expert_variables: dict
) -> GeneratorTrainState:
  """Returns the state before the first step.

  Args:
    config: of stage 2.
    begun: whether a checkpoint will take the state's place.
    expert_variables: of the frozen expert.
  """
  state = create_state(config, jax.random.key(config.seed))
  if config.speech_encoder_init == "expert":
    state = state.replace(
      generator=with_speech_encoder_of(expert_variables, state.generator)
    )
  elif config.speech_encoder_init != "torch":
    raise ValueError(
      f"config.speech_encoder_init is {config.speech_encoder_init!r}, expected "
      "'torch' or 'expert'"
    )
  elif config.speech_encoder_frozen and not config.init_checkpoint:
    raise ValueError(
      "config.speech_encoder_frozen is set, but the speech encoder has learnt "
      "nothing: set config.speech_encoder_init='expert', or init_checkpoint"
    )
  if config.init_discriminator and state.discriminator is None:
    raise ValueError(
      "config.init_discriminator is set, but there is no discriminator: "
      "config.loss.adversarial_weight is 0"
    )
  for network, path in (
    ("generator", config.init_checkpoint),
    ("discriminator", config.init_discriminator),
  ):
    if path and not begun:
      started = checkpoints.start_from(
        getattr(state, network), path, network, config.init_optimizer
      )
      state = state.replace(**{network: started})
  if config.ema_decay:
    # A copy: the step is given both for good.
    ema_params = jax.tree.map(jnp.copy, state.generator.params)
    state = state.replace(ema_params=ema_params)
  return state


def train_and_evaluate(config, workdir: str) -> GeneratorTrainState:
  """Trains the generator, from the workdir's newest checkpoint if it has one.

  Args:
    config: of stage 2, as in configs/generator_*.py or configs/gan_*.py.
    workdir: for checkpoints, figures and samples.

  Returns:
    The last state.
  """
  if not config.expert_checkpoint:
    raise ValueError(
      "config.expert_checkpoint is not set: give the workdir of a trained "
      "expert, --config.expert_checkpoint=DIR"
    )
  mesh = sharding.make_mesh(config.data.batch_size)
  directory = dataset.builder_dir(config.data.dir, config.image_size)
  train = dataset.Split(
    directory, "train", config.data.cache_gb, config.data.part
  )
  val = dataset.Split(directory, "val", config.data.cache_gb)
  expert_variables, expert_config = train_expert.load_frozen(
    config.expert_checkpoint
  )
  plain = checkpoints.to_plain(config)
  plain["preparation"] = dataset.preparation(directory)
  plain["data"]["contents"] = dataset.contents_digest((train, val))
  check_expert(plain, expert_config, config.expert_checkpoint)
  # With the step: stage 1 may go on while this run is stopped.
  expert_step = checkpoints.step_of(config.expert_checkpoint)
  plain["expert"] = {**expert_config, "step": expert_step}
  checkpoints.claim_workdir(workdir, plain)

  if config.eval.ema and not config.ema_decay:
    raise ValueError("config.eval.ema is set, but config.ema_decay is 0")
  evaluate = make_evaluator(config, expert_config, val, mesh)
  face_generator = inference.FaceGenerator(config)

  def evaluate_and_draw(state, frozen, writer):
    chosen = state.variables(config.eval.ema)
    results, grid = evaluate(chosen, frozen)
    if jax.process_index() == 0:
      # Of this process alone, as the drawing of the clip is.
      variables = jax.device_get(chosen)
      samples.write(
        int(state.step),
        workdir,
        writer,
        grid,
        lambda path: samples.render_clip(
          path, val, 0, len(val) - 1, face_generator, variables, config
        ),
      )
    return results

  begun = checkpoints.is_begun(workdir)
  state = initial_state(config, begun, expert_variables)
  batches, train_steps, data = train_expert.train_data(
    config, train, "generator", make_train_steps(config, expert_config), mesh
  )
  return train_loop.run(
    workdir=workdir,
    config=plain,
    schedule=config.train,
    mesh=mesh,
    state=sharding.put_replicated(mesh, state),
    frozen={
      "expert": sharding.put_replicated(mesh, expert_variables),
      **data,
    },
    train_steps=train_steps,
    batches=batches,
    evaluate=evaluate_and_draw,
    after_eval=switch_sync_weight(config),
    after_restore=restart_sync_weight(config),
  )
