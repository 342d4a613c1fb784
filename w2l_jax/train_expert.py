"""Stage 1: the expert learns which speech belongs to which faces.

Original: color_syncnet_train.py; paper section 3.1.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from w2l_jax import (
  checkpoints,
  dataset,
  input_pipeline,
  losses,
  network_inputs,
  resident_data,
  sharding,
  train_loop,
)
from w2l_jax.accumulation import accumulated
from w2l_jax.evaluation import sync_metrics
from w2l_jax.models import SyncExpert, layers
from w2l_jax.train_state import (
  ExpertTrainState,
  init_network,
  make_optimizer,
)
from w2l_jax.window_sampler import WindowSpec


def make_model(
  config, dtype: jnp.dtype | None = None, remat: bool = False
) -> SyncExpert:
  """Returns the expert that a config (or a checkpoint's config) describes.

  Args:
    config: of stage 1.
    dtype: of the computation; None: float32, also where it was trained in
      bfloat16.
    remat: see SyncExpert.
  """
  return SyncExpert(
    width=config["width"],
    image_size=config["image_size"],
    temperature=config["loss"]["temperature"]
    if is_contrastive(config)
    else None,
    dtype=dtype,
    remat=remat,
  )


def is_contrastive(config) -> bool:
  """Whether an expert's loss is the contrastive one, not the cosine BCE.

  Raises:
    ValueError: if config.loss.kind is another word, or the windows do not suit.
  """
  kind = config["loss"]["kind"]
  if kind not in ("cosine_bce", "contrastive"):
    raise ValueError(
      f"config.loss.kind is {kind!r}, expected 'cosine_bce' or 'contrastive'"
    )
  per_clip = config["windows"]["windows_per_clip"]
  if (kind == "contrastive") != (per_clip > 1):
    raise ValueError(
      f"config.loss.kind is {kind!r} and config.windows.windows_per_clip "
      f"{per_clip}; 'contrastive' needs at least 2, 'cosine_bce' 1"
    )
  return kind == "contrastive"


def model_inputs(config) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Returns shapes of (mel, faces) for one window."""
  size, spec = config["image_size"], config["windows"]
  return (
    jax.ShapeDtypeStruct((1, 80, spec["mel_columns"], 1), jnp.float32),
    jax.ShapeDtypeStruct((1, size // 2, size, 3 * spec["frames"]), jnp.float32),
  )


def load_frozen(path: str) -> tuple[dict, dict]:
  """Reads a trained expert.

  Args:
    path: a workdir or step folder of stage 1, a file of weights, or a name of
      released.names.

  Returns:
    (variables, the config that it was trained with).

  Raises:
    CheckpointError: if it is none.
  """
  config = checkpoints.load_config(path, "expert")
  abstract = jax.eval_shape(
    make_model(config).init, jax.random.key(0), *model_inputs(config)
  )
  return checkpoints.load_variables(path, "expert", abstract), config


def embed(apply: Callable, config, variables, batch, frames, **kwargs):
  """Embeds a batch's speech and the given windows of frames [B, T, S, S, 3].

  Args:
    apply: of the expert.
    config: of the expert.
    variables: of the expert.
    batch: has "mel".
    frames: pictures, or floats as the networks take them.
    **kwargs: for `apply`.

  Returns:
    What `apply` returns.
  """
  frames = network_inputs.to_float(frames, config["channel_order"])
  mel = network_inputs.mel_image(batch["mel"])
  return apply(variables, mel, network_inputs.expert_faces(frames), **kwargs)


def _optimizer(config) -> optax.GradientTransformation:
  return make_optimizer(**config.optimizer)


def create_state(config, rng: jax.Array) -> ExpertTrainState:
  """Initialises stage 1's state."""
  expert = init_network(
    make_model(config), rng, _optimizer(config), *model_inputs(config)
  )
  return ExpertTrainState(step=jnp.zeros((), jnp.int32), expert=expert)


def make_train_step(config) -> Callable:
  """Returns train_step(state, batch, frozen) -> (state, metrics)."""
  tx = _optimizer(config)
  model = make_model(config, layers.compute_dtype(config), config["remat"])
  apply = layers.training_apply(model, config["running_variance"])
  contrastive = is_contrastive(config)

  def train_step(state: ExpertTrainState, batch: dict, frozen: dict):
    del frozen  # Stage 1 uses no other network.

    def loss_fn(params, batch_stats, batch):
      variables = {"params": params, "batch_stats": batch_stats}
      (audio, face), updates = embed(
        apply,
        config,
        variables,
        batch,
        batch["frames"],
        train=True,
        mutable=["batch_stats"],
      )
      if contrastive:
        loss, accuracy = losses.contrastive_loss(
          audio,
          face,
          params["logit_scale"],
          config["windows"]["windows_per_clip"],
        )
      else:
        loss = losses.cosine_bce(audio, face, batch["in_sync"])
        similarity = losses.cosine_similarity(audio, face)
        correct = (similarity > 0.5) == (batch["in_sync"] > 0.5)
        accuracy = jnp.mean(correct.astype(jnp.float32))
      metrics = {
        "loss": loss,
        "accuracy": accuracy,
        # 1: all windows have the same embedding.
        "audio_embedding_mean_norm": jnp.linalg.norm(jnp.mean(audio, axis=0)),
        "face_embedding_mean_norm": jnp.linalg.norm(jnp.mean(face, axis=0)),
      }
      return loss, (updates["batch_stats"], metrics)

    def part_fn(batch_stats, part):
      grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(
        state.expert.params, batch_stats, part
      )
      return batch_stats, (grads, metrics)

    batch_stats, (grads, metrics) = accumulated(
      part_fn,
      state.expert.batch_stats,
      batch,
      config["train"]["microbatches"],
      config["windows"]["windows_per_clip"],
    )
    expert = state.expert.updated(grads, tx, batch_stats)
    metrics |= {
      "grad_norm": optax.tree.norm(grads),
      # Not finite as soon as any param is: such a state is never saved.
      "param_norm": optax.tree.norm(expert.params),
    }
    return ExpertTrainState(state.step + 1, expert), metrics

  return train_step


def make_eval_step(config) -> Callable:
  """Returns eval_step(variables, batch, frozen) -> outputs.

  "frames" is [B], how well the batch's frames fit its speech; "other" likewise
  where the batch has `other` frames; "in_sync" are the labels where it has any.
  """
  model = make_model(config)

  def eval_step(variables: dict, batch: dict, frozen: dict) -> dict:
    del frozen
    out = {}
    for key in ("frames", "other"):
      if key in batch:
        audio, face = embed(model.apply, config, variables, batch, batch[key])
        out[key] = losses.cosine_similarity(audio, face)
    if "in_sync" in batch:
      out["in_sync"] = batch["in_sync"]
    return out

  return eval_step


def window_spec(config) -> WindowSpec:
  """Returns config.windows as the sampler takes it."""
  names = {field.name for field in dataclasses.fields(WindowSpec)}
  return WindowSpec(
    **{k: v for k, v in config["windows"].items() if k in names}
  )


def make_evaluator(config, split: dataset.Split, mesh) -> Callable:
  """Returns evaluate(variables, frozen={}, thresholds=None) -> metrics.

  On fixed windows (chosen by config.eval.seed):
    eval/loss: mean BCE under the training's sampling rule, silent windows
      included as the original does.
    eval/two_way_accuracy: how often speech is nearer to its own faces than to
      faces of the same clip at least config.eval.two_way_distance frames away;
      windows with speech only.
    eval/balanced_accuracy: of those pairs at eval/threshold, which is
      `thresholds[""]` or else the best one for them.
    ..._all: the same with silent windows included; `thresholds["_all"]`.
  """
  spec = window_spec(config)
  pairs = dataclasses.replace(
    spec, min_negative_distance=config["eval"]["two_way_distance"]
  )
  eval_step = sharding.jit_eval_step(make_eval_step(config), mesh)

  def outputs(variables, frozen, stage, spec):
    batches = input_pipeline.make_batches(
      split,
      spec,
      stage,
      seed=config["eval"]["seed"],
      batch_size=config["data"]["batch_size"],
      last_step=config["eval"]["batches"],
      local_rows=sharding.local_rows(mesh, config["data"]["batch_size"]),
      num_threads=config["data"]["num_threads"],
    )
    found = [
      jax.device_get(
        eval_step(variables, sharding.global_batch(mesh, batch), frozen)
      )
      for batch in batches
    ]
    return {k: np.concatenate([f[k] for f in found]) for k in found[0]}

  def evaluate(variables, frozen=None, thresholds=None) -> dict[str, float]:
    frozen = frozen or {}
    everything = dataclasses.replace(
      spec, speech_only=False, windows_per_clip=1
    )
    found = outputs(variables, frozen, "expert", everything)
    metrics = {
      "eval/loss": sync_metrics.mean_bce(found["frames"], found["in_sync"])
    }
    for suffix, speech_only in (("", True), ("_all", False)):
      found = outputs(
        variables,
        frozen,
        "two_way",
        dataclasses.replace(pairs, speech_only=speech_only),
      )
      true, wrong = found["frames"], found["other"]
      threshold = (
        sync_metrics.best_threshold(true, wrong)
        if thresholds is None
        else thresholds[suffix]
      )
      metrics |= {
        f"eval/two_way_accuracy{suffix}": sync_metrics.two_way_accuracy(
          true, wrong
        ),
        f"eval/balanced_accuracy{suffix}": sync_metrics.balanced_accuracy(
          true, wrong, threshold
        ),
        f"eval/threshold{suffix}": threshold,
      }
    return metrics

  return evaluate


def train_data(config, split, stage: str, train_steps: dict, mesh):
  """Returns what a run trains on, as config.data.on_device says.

  Args:
    config: of the stage.
    split: to train on.
    stage: "expert" or "generator".
    train_steps: {first step of a phase: train step of pictures}.
    mesh: of the run.

  Returns:
    (first step -> iterator over this process's batches, train steps that take
    those, what they find in `frozen` beside networks, on the devices).
  """
  spec = window_spec(config)
  rows = sharding.local_rows(mesh, config.data.batch_size)
  if not config.data.on_device:
    batches = input_pipeline.train_batches(split, spec, stage, config, rows)
    return batches, train_steps, {}
  data = resident_data.load(split, progress=jax.process_index() == 0)
  return (
    resident_data.train_batches(split, spec, stage, config, rows),
    {k: resident_data.gathering(v, spec) for k, v in train_steps.items()},
    {"data": sharding.put_replicated(mesh, data)},
  )


def train_and_evaluate(config, workdir: str) -> ExpertTrainState:
  """Trains the expert, from the workdir's newest checkpoint if it has one.

  Args:
    config: of stage 1, as in configs/expert_*.py.
    workdir: for checkpoints and figures.

  Returns:
    The last state.
  """
  mesh = sharding.make_mesh(config.data.batch_size)
  directory = dataset.builder_dir(config.data.dir, config.image_size)
  train = dataset.Split(
    directory, "train", config.data.cache_gb, config.data.part
  )
  val = dataset.Split(directory, "val", config.data.cache_gb)
  plain = checkpoints.to_plain(config)
  plain["preparation"] = dataset.preparation(directory)
  plain["data"]["contents"] = dataset.contents_digest((train, val))
  checkpoints.claim_workdir(workdir, plain)
  evaluate = make_evaluator(config, val, mesh)
  state = create_state(config, jax.random.key(config.seed))
  if config.init_checkpoint and not checkpoints.is_begun(workdir):
    expert = checkpoints.start_from(
      state.expert, config.init_checkpoint, "expert", config.init_optimizer
    )
    state = state.replace(expert=expert)
  batches, train_steps, data = train_data(
    config, train, "expert", {0: make_train_step(config)}, mesh
  )
  return train_loop.run(
    workdir=workdir,
    config=plain,
    schedule=config.train,
    mesh=mesh,
    state=sharding.put_replicated(mesh, state),
    frozen=data,
    train_steps=train_steps,
    batches=batches,
    evaluate=lambda state, frozen, _: evaluate(state.expert.variables, frozen),
  )
