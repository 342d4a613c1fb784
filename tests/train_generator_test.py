"""Stage 2 from its shipped configs, at :tiny, on a prepared set."""

import itertools
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from conftest import (
  STEPS,
  assert_trees_equal,
  expert_config,
  gan_config,
  untimed,
)

from configs import expert_rendered, gan_lrs2, generator_grid
from launch import convert_checkpoint
from w2l_jax import (
  checkpoints,
  dataset,
  inference,
  input_pipeline,
  losses,
  metrics,
  sharding,
  train_expert,
  train_generator,
  train_loop,
  video,
)
from w2l_jax.checkpoint_store import CheckpointStore
from w2l_jax.models import audio_encoder
from w2l_jax.train_state import adam_of, make_optimizer


@pytest.mark.parametrize("form", ["non_saturating", "saturating"])
def test_one_pass_back_serves_both_sides(form):
  """As the two losses' own gradients, also where the discriminator is sure."""
  rng = np.random.default_rng(0)
  real, fake = rng.random((2, 6, 4, 4, 3)).astype(np.float32)
  params = {
    "hidden": rng.normal(size=(48, 8)).astype(np.float32),
    "last": rng.normal(size=(8, 1)).astype(np.float32),
  }
  # What the frames' logits are moved by: D(fake) is 1 to 1e-90.
  moves = jnp.array([0.0, 3.0, -3.0, 60.0, -60.0, -200.0])[:, None]

  def judge(params, frames):
    hidden = jnp.tanh(frames.reshape(6, -1) @ params["hidden"])
    return hidden @ params["last"] + moves

  def adversarial(fake):
    return losses.generator_adversarial_loss(judge(params, fake), form)

  def own(params):
    return losses.discriminator_loss(judge(params, real), judge(params, fake))

  grads, fake_grad, terms = train_generator.opposed_gradients(
    judge, params, real, fake, form
  )
  value, expected = jax.value_and_grad(own)(params)
  assert terms["loss_discriminator"] == value
  assert terms["loss_adversarial"] == adversarial(fake)
  for a, b in zip(*map(jax.tree.leaves, (grads, expected)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  expected = jax.grad(adversarial)(fake)
  for a, b in zip(fake_grad, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


def test_gan_trains(gan_run, data_dir):
  workdir, state = gan_run
  assert state.step == STEPS
  assert state.sync_weight == np.float32(0.03)  # Switched on by evaluation.
  lines = metrics.read_metrics(workdir)
  assert all(np.isfinite(list(line.values())).all() for line in lines)
  weights = [
    line["train/sync_weight"] for line in lines if "train/loss" in line
  ]
  np.testing.assert_allclose(weights, [0.01, 0.01, 0.03, 0.03], rtol=1e-6)
  last = [line for line in lines if "eval/l1" in line][-1]
  for name in ("l1", "lower_l1", "lower_psnr", "lower_ssim", "loss_sync"):
    assert f"eval/{name}" in last and f"eval/{name}_copied" in last
  assert "eval/loss_sync_real" in last
  # Losses are weighted as in hq_wav2lip_train.py.
  for line in lines:
    if "train/loss" in line:
      w = line["train/sync_weight"]
      np.testing.assert_allclose(
        line["train/loss"],
        w * line["train/loss_sync"]
        + 0.07 * line["train/loss_adversarial"]
        + (1 - w - 0.07) * line["train/loss_l1"],
        rtol=1e-5,
      )


def test_gan_draws_samples(gan_run):
  workdir, _ = gan_run
  folder = os.path.join(workdir, "samples")
  names = sorted(os.listdir(folder))
  assert names == [
    "clip_00000002.mp4",
    "clip_00000004.mp4",
    "grid_00000002.png",
    "grid_00000004.png",
  ]
  grid = video.read_image(os.path.join(folder, names[-1]))
  assert grid.shape == (4 * 24, 4 * 24, 3)
  # Column two is column four with its lower half blacked.
  assert np.all(grid[12:24, 24:48] == 0)
  np.testing.assert_array_equal(grid[:12, 24:48], grid[:12, 72:96])
  clip = os.path.join(folder, names[1])
  frames = list(video.frames_at_rate(clip, 25))
  waveform, rate = video.read_audio(clip)
  assert frames[0].shape == (48, 96, 3)
  assert abs(len(waveform) / rate - len(frames) / 25) < 0.1
  assert np.abs(waveform).max() > 0.05


def test_gan_resumes_exactly(gan_run, expert_run, data_dir, tmp_path):
  """The sync weight, both networks and the data position go on exactly."""
  workdir, state = gan_run
  for steps in (2, STEPS):
    resumed = train_generator.train_and_evaluate(
      gan_config(data_dir, expert_run[0], steps), str(tmp_path)
    )
  assert_trees_equal(jax.device_get(resumed), state)
  lines = [m for m in untimed(tmp_path) if "train/loss" in m]
  assert lines == [m for m in untimed(workdir) if "train/loss" in m]


@pytest.fixture(scope="session")
def gan_parts(data_dir, expert_run):
  """A config, expert and batch for single steps of stage 2."""
  config = gan_config(data_dir, expert_run[0])
  variables, expert = train_expert.load_frozen(expert_run[0])
  split = dataset.Split(dataset.builder_dir(data_dir, 24), "train")
  batch = next(
    input_pipeline.train_batches(
      split, train_expert.window_spec(config), "generator", config
    )(0)
  )
  return config, expert, variables, batch


def test_without_gan(gan_parts, data_dir, expert_run):
  """No discriminator is built where its weight is 0."""
  _, expert, variables, batch = gan_parts
  config = gan_config(data_dir, expert_run[0], get=generator_grid.get_config)
  config.loss.mouth_weight = 3.0
  config.speech_encoder_frozen = True
  config.ema_decay = 0.75
  state = before = train_generator.create_state(config, jax.random.key(0))
  assert state.discriminator is None
  step = jax.jit(train_generator.make_train_step(config, expert))
  state, terms = step(state, batch, {"expert": variables})
  assert state.discriminator is None
  for old, new in zip(
    *(s.generator.variables.values() for s in (before, state)), strict=True
  ):
    assert_trees_equal(old["audio_encoder"], new["audio_encoder"])
    for part in ("face_encoder_blocks_0_0", "face_decoder_blocks_0_0"):
      # Not the bias of a convolution before BatchNorm: its gradient is zero.
      found = [
        np.any(x != y)
        for (path, x), y in zip(
          jax.tree_util.tree_leaves_with_path(old[part]),
          jax.tree.leaves(new[part]),
          strict=True,
        )
        if "'conv'" not in str(path) or "'bias'" not in str(path)
      ]
      assert found and all(found)
  assert set(terms) == {
    "loss", "loss_l1", "loss_l1_mouth", "loss_sync", "sync_weight",
    "grad_norm", "param_norm",
  }  # fmt: skip
  jax.tree.map(
    lambda average, old, new: np.testing.assert_allclose(
      average, 0.75 * old + 0.25 * new, rtol=1e-5, atol=1e-7
    ),
    state.ema_params,
    before.generator.params,
    state.generator.params,
  )
  assert state.variables(ema=True)["params"] is state.ema_params
  assert state.variables(ema=False) == state.generator.variables
  l1 = (terms["loss_l1"] + 3 * terms["loss_l1_mouth"]) / 4
  np.testing.assert_allclose(
    terms["loss"], 0.01 * terms["loss_sync"] + 0.99 * l1, rtol=1e-5
  )


def test_reconstruction_loss():
  rng = np.random.default_rng(0)
  fake, real = rng.uniform(size=(2, 3, 8, 8, 3))
  loss, parts = train_generator.reconstruction_loss(fake, real, 0.0)
  assert set(parts) == {"loss_l1"}
  np.testing.assert_allclose(loss, np.abs(fake - real).mean(), rtol=1e-6)
  loss, parts = train_generator.reconstruction_loss(fake, real, 2.0)
  # Every pixel of rows 4 to 7, columns 2 to 5 counts once more, at its weight.
  weights = np.full((8, 8), 1 / 64)
  weights[4:, 2:6] += 2 / 16
  expected = (np.abs(fake - real).mean(axis=(0, 3)) * weights).sum() / 3
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert parts["loss_l1_mouth"] != parts["loss_l1"]


def test_expert_stays_bit_identical(gan_parts, expert_run, gan_run):
  """The step neither changes the expert's variables nor takes their buffers."""
  config, expert, variables, batch = gan_parts
  mesh = sharding.make_mesh(4)
  frozen = sharding.put_replicated(mesh, {"expert": variables})
  before = jax.device_get(variables)
  step = sharding.jit_train_step(
    train_generator.make_train_step(config, expert), mesh
  )
  state = sharding.put_replicated(
    mesh, train_generator.create_state(config, jax.random.key(0))
  )
  kept = state.generator.params["output_block_1"]["kernel"]
  state, _ = step(state, sharding.global_batch(mesh, batch), frozen)
  assert kept.is_deleted()  # The state is donated, ...
  assert not any(x.is_deleted() for x in jax.tree.leaves(frozen))
  assert_trees_equal(jax.device_get(frozen["expert"]), before)
  # ... and after a whole run the expert's checkpoint holds the same.
  assert_trees_equal(
    jax.device_get(train_expert.load_frozen(expert_run[0])[0]), before
  )


def trained_as_in_a_run(config, expert):
  """The train step exactly as a run compiles it: the cache has it already."""
  mesh = sharding.make_mesh(config.data.batch_size)
  step = sharding.jit_train_step(
    train_generator.make_train_step(config, expert), mesh
  )

  def train_step(state, batch, frozen):
    return step(
      # Copies: the step's own are donated.
      sharding.put_replicated(mesh, jax.tree.map(np.array, state)),
      sharding.global_batch(mesh, batch),
      sharding.put_replicated(mesh, frozen),
    )

  return train_step


def test_gradients_do_not_cross(gan_parts):
  """Each network's update is that of its own loss, by separate gradients.

  The adversarial part of the generator's gradient passes through the
  discriminator, and nothing else passes between the two.
  """
  config, expert, variables, batch = gan_parts
  state = train_generator.create_state(config, jax.random.key(0))
  frozen = {"expert": variables}
  step = trained_as_in_a_run(config, expert)
  new, _ = step(state, batch, frozen)

  generator = inference.make_model(config)
  discriminator = train_generator.make_discriminator(config)
  real, (fake, _) = jax.jit(
    lambda variables: train_generator.generate(
      generator.apply,
      config,
      variables,
      batch,
      train=True,
      mutable=["batch_stats"],
    )
  )(state.generator.variables)

  def d_loss(params):
    """Written from the original's losses with probabilities, not logits."""
    half = lambda x: x[:, 12:]  # noqa: E731
    judge = lambda x: jax.nn.sigmoid(  # noqa: E731
      discriminator.apply({"params": params}, half(x))
    )
    return -jnp.mean(jnp.log(judge(real))) - jnp.mean(jnp.log(1 - judge(fake)))

  # Adam's first moment after one step is (1 - b1) times the gradient.
  expected = jax.jit(jax.grad(d_loss))(state.discriminator.params)
  moments = new.discriminator.opt_state[0].mu
  jax.tree.map(
    lambda m, g: np.testing.assert_allclose(
      m / 0.5, g, rtol=2e-3, atol=1e-5 * float(jnp.abs(g).max()) + 1e-9
    ),
    moments,
    expected,
  )

  # Another sync weight changes the generator's update alone.
  other, _ = step(state.replace(sync_weight=jnp.float32(0.9)), batch, frozen)
  assert_trees_equal(
    jax.device_get(other.discriminator), jax.device_get(new.discriminator)
  )
  changed = jax.tree.map(
    lambda a, b: bool(np.any(a != b)),
    other.generator.opt_state[0].mu,
    new.generator.opt_state[0].mu,
  )
  assert np.mean(jax.tree.leaves(changed)) > 0.5


@pytest.mark.slow  # Compiles both sides in float64: two minutes.
def test_the_generators_gradient(gan_parts):
  """That of the original's weighted sum, differentiated in one piece."""
  config, expert, variables, batch = gan_parts
  state = train_generator.create_state(config, jax.random.key(0))
  # In float64: in float32 rounding moves some gradients of so narrow a network
  # by some percent.
  with jax.enable_x64(True):
    check_generators_gradient(
      config,
      expert,
      *jax.tree.map(
        lambda x: x.astype(np.float64) if x.dtype == np.float32 else x,
        jax.device_get((variables, batch, state)),
      ),
    )


def check_generators_gradient(config, expert, variables, batch, state):
  step = jax.jit(train_generator.make_train_step(config, expert))
  new, terms = step(state, batch, {"expert": variables})
  generator = inference.make_model(config)
  discriminator = train_generator.make_discriminator(config)
  model = train_expert.make_model(expert)

  def loss_fn(params):
    real, (fake, _) = train_generator.generate(
      generator.apply,
      config,
      {**state.generator.variables, "params": params},
      batch,
      train=True,
      mutable=["batch_stats"],
    )
    lower = fake.reshape(-1, 5, 24, 24, 3)[:, :, 12:]
    lower = lower.transpose(0, 2, 3, 1, 4).reshape(len(lower), 12, 24, 15)
    mel = batch["mel"].transpose(0, 2, 1)[..., None]
    audio, face = model.apply(variables, mel, lower)
    sync = -jnp.log((audio * face).sum(axis=1))
    loud = batch["mel"].mean(axis=(1, 2)) > -2.5
    logits = discriminator.apply(
      {"params": state.discriminator.params}, fake[:, 12:]
    )
    return (
      0.01 * (sync * loud).sum() / max(loud.sum(), 1)
      + 0.07 * -jnp.log(jax.nn.sigmoid(logits)).mean()
      + 0.92 * jnp.abs(fake - real).mean()
    )

  loss, expected = jax.jit(jax.value_and_grad(loss_fn))(state.generator.params)
  np.testing.assert_allclose(terms["loss"], loss, rtol=1e-6)
  jax.tree.map(
    lambda m, g: np.testing.assert_allclose(
      m / (1 - config.optimizer.b1),
      g,
      rtol=1e-4,
      atol=1e-7,
    ),
    new.generator.opt_state[0].mu,
    expected,
  )


@pytest.mark.slow  # Compiles a program of its own.
def test_the_discriminator_rests_before_its_first_step(gan_parts):
  """Until then the step is that without GAN; from then on, the usual one."""
  config, expert, variables, batch = gan_parts
  frozen = {"expert": variables}
  config = config.copy_and_resolve_references()
  assert list(train_generator.make_train_steps(config, expert)) == [0]
  config.loss.adversarial_from_step = 3
  steps = train_generator.make_train_steps(config, expert)
  assert list(steps) == [0, 3]
  state = train_generator.create_state(config, jax.random.key(0))
  new, terms = jax.jit(steps[0])(state, batch, frozen)
  assert_trees_equal(
    jax.device_get(new.discriminator), jax.device_get(state.discriminator)
  )
  assert "loss_adversarial" not in terms
  np.testing.assert_allclose(
    terms["loss"],
    0.01 * terms["loss_sync"] + 0.99 * terms["loss_l1"],
    rtol=1e-5,
  )
  config.loss.adversarial_weight = 0.0
  assert list(train_generator.make_train_steps(config, expert)) == [0]


def test_what_a_step_draws_of_its_batch(gan_parts):
  """Single frames of all windows, then some windows whole."""
  config, expert, _, batch = gan_parts
  config = config.copy_and_resolve_references()
  config.loss.frames_before_sync = 1
  config.loss.windows_with_sync = 2
  config.data.batch_size = len(batch["mel"])
  keys = {"frames", "other", "frame_mels"}
  before, whole = train_generator._drawn_part(config, sync=False)(batch)
  assert before.keys() == keys and not len(whole["frames"])
  for key, value in before.items():
    np.testing.assert_array_equal(value, batch[key][:, :1])
  since, whole = train_generator._drawn_part(config, sync=True)(batch)
  assert whole.keys() == batch.keys() and since.keys() == keys
  for key, value in whole.items():
    np.testing.assert_array_equal(value, batch[key][:2])
  for key, value in since.items():
    expected = [*batch[key][0], *batch[key][1], *batch[key][2:, 0]]
    np.testing.assert_array_equal(value[:, 0], np.stack(expected))
  config.loss.windows_with_sync = 0
  since, whole = train_generator._drawn_part(config, sync=True)(batch)
  for key, value in since.items():
    np.testing.assert_array_equal(
      value[:, 0], batch[key].reshape(-1, *batch[key].shape[2:])
    )
    np.testing.assert_array_equal(whole[key], batch[key])
  config.loss.windows_with_sync = 99
  with pytest.raises(ValueError, match="windows_with_sync is 99, expected 0"):
    train_generator.make_train_step(config, expert)
  config.loss.frames_before_sync = 0
  with pytest.raises(ValueError, match="before_sync is 0, expected 1 to 5"):
    train_generator.make_train_step(config, expert)


def test_the_generator_begins_with_the_experts_ears(gan_parts):
  """Equal to the expert's encoder whose extra residual block adds nothing."""
  config, expert_config, variables, batch = gan_parts
  config = config.copy_and_resolve_references()
  config.speech_encoder_frozen = True
  with pytest.raises(ValueError, match="has learnt nothing: set config.speech"):
    train_generator.initial_state(config, False, variables)
  config.speech_encoder_init = "expert"
  state = train_generator.initial_state(config, False, variables)
  theirs = {k: dict(v["audio_encoder"]) for k, v in variables.items()}
  extra = theirs["params"]["block_11"]
  silent = jax.tree.map(jnp.zeros_like, extra["batch_norm"])
  theirs["params"] |= {"block_11": {**extra, "batch_norm": silent}}
  ours = {k: v["audio_encoder"] for k, v in state.generator.variables.items()}
  mel = np.asarray(batch["mel"]).swapaxes(1, 2)[..., None]
  np.testing.assert_allclose(
    audio_encoder.AudioEncoder(1, config.width).apply(ours, mel, False),
    audio_encoder.AudioEncoder(2, config.width).apply(theirs, mel, False),
    rtol=1e-6,
  )
  # The step is donated the state, but not the expert.
  mine, frozen = (
    {id(x) for x in jax.tree.leaves(v)} for v in (ours, variables)
  )
  assert not mine & frozen
  config.speech_encoder_init = "he"
  with pytest.raises(ValueError, match="'he', expected 'torch' or 'expert'"):
    train_generator.initial_state(config, False, variables)


@pytest.mark.parametrize("offset", [-1, 1])
def test_contrastive_sync_loss_of_a_batch(gan_parts, offset):
  """Own speech against other windows' and against a frame before and after."""
  config, _, _, batch = gan_parts
  config = config.copy_and_resolve_references()
  config.windows.frame_mel_offset = offset
  expert = expert_rendered.get_config("tiny")
  model = train_expert.make_model(expert)
  shapes = train_expert.model_inputs(expert)
  variables = jax.jit(model.init)(
    jax.random.key(0), *(np.zeros(s.shape, s.dtype) for s in shapes)
  )
  apply = jax.jit(model.apply)
  rng = np.random.default_rng(0)
  mel = rng.uniform(-4, 4, (3, *batch["mel"].shape[1:])).astype(np.float32)
  near = rng.uniform(-4, 4, (3, *batch["frame_mels"].shape[1:]))
  near = near.astype(np.float32)
  # At this frame a window's own mel stands, where it is among them.
  if offset <= 0:
    near[:, -offset] = mel
  frames = rng.random((3, *batch["frames"].shape[1:]), np.float32)
  values = jax.jit(train_generator._expert_sync_losses(config, expert))(
    variables, {"mel": mel, "frame_mels": near}, frames
  )
  faces = np.concatenate([frames[:, t, 12:] for t in range(5)], axis=-1)
  heard = [*mel, *(m for w in near for m in w)]
  audio = [
    apply(variables, m.T[None, ..., None], faces[:1])[0][0] for m in heard
  ]
  scale = np.exp(variables["params"]["logit_scale"])
  for b in range(3):
    _, face = apply(
      variables, mel[:1].swapaxes(1, 2)[..., None], faces[b : b + 1]
    )
    logits = scale * np.array([a @ face[0] for a in audio])
    # Each own mel is there once more, as a frame's.
    again = [3 + 5 * w - offset for w in range(3)] if offset <= 0 else []
    kept = [i for i in range(len(heard)) if i not in again]
    expected = np.log(np.exp(logits[kept]).sum()) - logits[b]
    np.testing.assert_allclose(values[b], expected, rtol=1e-4)


@pytest.mark.slow  # Compiles a program of its own.
def test_the_expert_rests_before_its_first_step(gan_parts):
  """Until then it is not asked, and single frames of the windows are drawn."""
  config, expert, variables, batch = gan_parts
  config = config.copy_and_resolve_references()
  config.loss.sync_from_step = 2
  config.loss.adversarial_from_step = 3
  config.loss.frames_before_sync = 1
  steps = train_generator.make_train_steps(config, expert)
  assert list(steps) == [0, 2, 3]
  state = train_generator.create_state(config, jax.random.key(0))
  broken = jax.tree.map(lambda x: x * np.nan, variables)
  new, terms = jax.jit(steps[0])(state, batch, {"expert": broken})
  assert "loss_sync" not in terms and "loss_adversarial" not in terms
  assert terms["loss"] == terms["loss_l1"] and terms["sync_weight"] == 0

  def l1(params):
    real, (fake, _) = train_generator.generate(
      inference.make_model(config).apply,
      config,
      {**state.generator.variables, "params": params},
      {k: v[:, :1] for k, v in batch.items() if k != "mel"},
      train=True,
      mutable=["batch_stats"],
    )
    return jnp.abs(fake - real).mean()

  value, grads = jax.jit(jax.value_and_grad(l1))(state.generator.params)
  np.testing.assert_allclose(terms["loss"], value, rtol=1e-5)
  jax.tree.map(
    lambda m, g: np.testing.assert_allclose(
      m / (1 - config.optimizer.b1), g, rtol=1e-3, atol=1e-6
    ),
    adam_of(new.generator.opt_state).mu,
    grads,
  )


def test_the_sync_weight_on_restart(tmp_path):
  """Kept, or the initial one again, as in the original; by the loop."""
  config = gan_lrs2.get_config("tiny")

  def state_of():  # A new one each time: the loop donates it.
    return train_generator.GeneratorTrainState(
      jnp.int32(0), None, None, jnp.float32(0.03)
    )

  state = state_of()
  assert train_generator.restart_sync_weight(config)(state).sync_weight > 0
  config.loss.sync_weight_on_restart = "initial"
  rule = train_generator.restart_sync_weight(config)
  assert rule(state).sync_weight == 0
  config.loss.sync_weight_on_restart = "lost"
  with pytest.raises(ValueError, match="'lost', expected 'kept' or"):
    train_generator.restart_sync_weight(config)
  mesh = sharding.make_mesh(1)

  def run(num_steps):
    return train_loop.run(
      workdir=str(tmp_path),
      config=checkpoints.to_plain(config),
      schedule=ml_collections.ConfigDict(
        {
          "num_steps": num_steps,
          "log_every_steps": 9,
          "eval_every_steps": 9,
          "save_every_steps": 9,
          "keep": 1,
          "best_metric": "eval/loss",
          "best_mode": "min",
        }
      ),
      mesh=mesh,
      state=sharding.put_replicated(mesh, state_of()),
      frozen={},
      train_steps={
        0: lambda state, batch, frozen: (
          state.replace(step=state.step + 1),
          {"weight": state.sync_weight},
        )
      },
      batches=lambda first: itertools.repeat({"x": np.zeros((1, 1))}),
      evaluate=lambda state, frozen, writer: {},
      after_restore=rule,
    )

  assert run(1).sync_weight == np.float32(0.03)
  assert run(2).sync_weight == 0


def test_long_gradients_are_shortened():
  """By clip_norm, to that length; shorter ones stay; 0 leaves all."""
  for clip_norm, expected in ((0.0, (3.0, 4.0)), (1.0, (0.6, 0.8))):
    tx = make_optimizer(1.0, 0.5, 0.9, 1e-8, 0, clip_norm)
    grads = {"a": jnp.float32(3.0), "b": jnp.float32(4.0)}
    opt_state = tx.init(grads)
    _, opt_state = tx.update(grads, opt_state)
    adam = opt_state[1][0] if clip_norm else opt_state[0]
    moments = adam.mu["a"] / 0.5, adam.mu["b"] / 0.5
    np.testing.assert_allclose(moments, expected, rtol=1e-6)
  short = {"a": jnp.float32(0.3), "b": jnp.float32(0.4)}
  _, opt_state = tx.update(short, tx.init(short))
  np.testing.assert_allclose(opt_state[1][0].mu["a"] / 0.5, 0.3, rtol=1e-6)


def test_the_average_is_read_where_asked(gan_run, tmp_path):
  workdir, state = gan_run
  _, _, config = checkpoints.describe(workdir)
  with pytest.raises(checkpoints.CheckpointError, match="ema_decay is 0"):
    inference.load_generator(workdir, ema=True)
  config["ema_decay"] = 0.9
  average = jax.tree.map(lambda x: 2 * x, state.generator.params)
  store = CheckpointStore(str(tmp_path), 1)
  store.save(4, state.replace(ema_params=average), config)
  store.close()
  variables, _ = inference.load_generator(str(tmp_path), ema=True)
  assert_trees_equal(variables["params"], average)
  assert_trees_equal(variables["batch_stats"], state.generator.batch_stats)
  variables, _ = inference.load_generator(str(tmp_path))
  assert_trees_equal(variables["params"], state.generator.params)
  path = str(tmp_path / "average.safetensors")
  convert_checkpoint.convert("generator", str(tmp_path), path, ema=True)
  variables, _ = inference.load_generator(path)
  assert_trees_equal(variables["params"], average)


def test_sync_weight_rule():
  """One way, by the validation sync loss against the threshold."""
  config = gan_lrs2.get_config("tiny")
  rule = train_generator.switch_sync_weight(config)
  state = train_generator.GeneratorTrainState(
    jnp.int32(0), None, None, jnp.float32(0)
  )
  state = rule(state, {"eval/loss_sync": 0.7501})
  assert state.sync_weight == 0
  state = rule(state, {"eval/loss_sync": 0.7499})
  assert state.sync_weight == np.float32(0.03)
  state = rule(state, {"eval/loss_sync": 2.0})
  assert state.sync_weight == np.float32(0.03)


def test_batch_mode_of_the_experts_batch_norm(gan_parts):
  """ "batch" normalises by the windows at hand; "running" does not."""
  config, expert, variables, batch = gan_parts
  found = {}
  for mode in ("running", "batch"):
    config = config.copy_and_resolve_references()
    config.expert_batch_norm = mode
    sync_losses = train_generator._expert_sync_losses(config, expert)
    found[mode] = jax.jit(sync_losses)(variables, batch, batch["frames"])
  assert np.all(found["running"] != found["batch"])
  # In "running" mode a window's loss does not depend on its neighbours.
  config.expert_batch_norm = "running"
  sync_losses = train_generator._expert_sync_losses(config, expert)
  first = {k: v[:1] for k, v in batch.items()}
  alone = jax.jit(sync_losses)(variables, first, first["frames"])
  np.testing.assert_allclose(alone[0], found["running"][0], rtol=1e-4)


def test_silent_windows_do_not_count(gan_parts):
  """An expert trained on speech alone is not asked about silence."""
  _, expert, _, batch = gan_parts
  mel = np.array(batch["mel"])
  mel[1] = -4.0
  mask = train_generator._judged(expert)(mel)
  np.testing.assert_array_equal(mask, [1, 0, 1, 1])


@pytest.mark.slow  # Compiles four programs.
@pytest.mark.parametrize("stage", ["expert", "generator"])
def test_parts_of_a_batch_give_the_mean_of_their_gradients(gan_parts, stage):
  """Each part is normalised by itself, as a batch of that size is."""
  config, expert, variables, batch = gan_parts
  config = config.copy_and_resolve_references()
  module, extra = train_generator, (expert,)
  if stage == "expert":
    config = expert_config(config.data.dir)
    module, extra = train_expert, ()
    batch = {**batch, "in_sync": np.float32([1, 0, 0, 1])}
  else:
    # Of parts with different numbers of speech windows.
    batch = {**batch, "mel": np.array(batch["mel"])}
    batch["mel"][0] = -4.0
  frozen = {"expert": variables}
  state = module.create_state(config, jax.random.key(0))

  def gradients(parts, batch):
    config.train.microbatches = parts
    config.data.batch_size = len(batch["mel"])
    step = jax.jit(module.make_train_step(config, *extra))
    new, terms = step(state, batch, frozen)
    network = new.expert if stage == "expert" else new.generator
    return adam_of(network.opt_state).mu, terms

  found, terms = gradients(2, batch)
  halves = [
    gradients(1, {k: v[i::2] for k, v in batch.items()}) for i in (0, 1)
  ]
  if stage == "generator":
    # The halves' means of the sync loss weigh one and two windows alike.
    sync = [half[1]["loss_sync"] for half in halves]
    np.testing.assert_allclose(
      terms["loss_sync"], (sync[0] + 2 * sync[1]) / 3, rtol=1e-4
    )
    return
  jax.tree.map(
    lambda whole, *parts: np.testing.assert_allclose(
      whole, sum(parts) / 2, rtol=1e-3, atol=1e-6
    ),
    found,
    *(half[0] for half in halves),
  )
