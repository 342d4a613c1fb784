"""The benchmark's operations in this project, and what only it has."""

import collections
import json
import os
import pathlib
import shutil
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import expert_lrs2, gan_lrs2, generator_lrs2
from data_prep import clips, prepare
from tests.benchmarks import operation
from tests.benchmarks.operation import Operation, Options
from tests.parity.both_sides import make_twins, network_state, variables_of
from w2l_jax import (
  checkpoint_store,
  dataset,
  inference,
  input_pipeline,
  lip_syncer,
  models,
  sharding,
  train_expert,
  train_generator,
  video,
)
from w2l_jax.train_state import ExpertTrainState, GeneratorTrainState
from w2l_jax.window_sampler import WindowSpec


def _dtype(options: Options):
  return jnp.bfloat16 if options.precision == "bfloat16" else None


def _variables(options: Options) -> dict:
  return {
    name: variables_of(twin, name, options.width, np.float32)
    for name, twin in make_twins(options.width).items()
  }


def _compiled(function, *args) -> tuple:
  """Returns (compiled for these arguments, {seconds and costs})."""
  began = time.perf_counter()
  compiled = function.lower(*args).compile()
  cost = compiled.cost_analysis() or {}
  memory = compiled.memory_analysis()
  return compiled, {
    "compile_seconds": time.perf_counter() - began,
    "flops": cost.get("flops", 0.0),
    "bytes": cost.get("bytes accessed", 0.0),
    "temporary_bytes": getattr(memory, "temp_size_in_bytes", 0),
  }


def generator(options: Options) -> Operation:
  """The forward pass in eval mode, as lip-syncing calls it."""
  model = models.Generator(
    options.width, dtype=_dtype(options), for_inference=True
  )
  variables = _variables(options)["generator"]
  mels, faces = operation.generator_inputs(options)
  forward, facts = _compiled(
    jax.jit(lambda v, m, f: inference.draw(model, v, m, f)),
    variables,
    mels,
    faces,
  )

  def run():
    return forward(variables, mels, faces).block_until_ready()

  frames = np.asarray(run(), np.float32)
  return Operation(run, options.batch_size, "frames", {"frames": frames}, facts)


def _step(options: Options, config, state, step, frozen, count) -> Operation:
  mesh = sharding.make_mesh(count)
  local = operation.windows(count)
  if config.stage == "expert":
    local = {k: local[k] for k in ("frames", "mel", "in_sync")}
  else:
    del local["in_sync"]
  state = sharding.put_replicated(mesh, jax.device_get(state))
  frozen = sharding.put_replicated(mesh, jax.device_get(frozen))
  batch = sharding.global_batch(mesh, local)
  step, facts = _compiled(
    sharding.jit_train_step(step, mesh), state, batch, frozen
  )
  held = [state]

  def run():
    batch = sharding.global_batch(mesh, local)
    held[0], metrics = step(held[0], batch, frozen)
    return {
      k: float(v) for k, v in metrics.items() if k.startswith("loss")
    }  # Waits.

  outputs = {k: np.asarray(v) for k, v in run().items()}
  return Operation(run, count, "windows", outputs, facts)


def _sized(config, options: Options):
  config.width = options.width
  config.compute_dtype = options.precision
  return config


def expert_step(options: Options) -> Operation:
  """A step of stage 1."""
  config = _sized(expert_lrs2.get_config(), options)
  config.data.batch_size = options.batch_size
  variables = _variables(options)["sync_expert"]
  state = ExpertTrainState(
    jnp.int32(0), network_state(variables, config.optimizer)
  )
  step = train_expert.make_train_step(config)
  return _step(options, config, state, step, {}, options.batch_size)


def _stage_2(config, options: Options) -> Operation:
  config = _sized(config, options)
  config.data.batch_size = options.generator_windows
  config.loss.sync_weight_initial = config.loss.sync_weight
  # By the statistics of a few windows, rounding alone is a thousandth.
  config.expert_batch_norm = "running"
  variables = _variables(options)
  discriminator = None
  if config.loss.adversarial_weight:
    discriminator = network_state(
      variables["quality_discriminator"], config.discriminator_optimizer
    )
  state = GeneratorTrainState(
    jnp.int32(0),
    network_state(variables["generator"], config.optimizer),
    discriminator,
    jnp.float32(config.loss.sync_weight_initial),
  )
  step = train_generator.make_train_step(
    config, _sized(expert_lrs2.get_config(), options)
  )
  frozen = {"expert": variables["sync_expert"]}
  return _step(options, config, state, step, frozen, options.generator_windows)


def generator_step(options: Options) -> Operation:
  """A step of stage 2 without GAN, the sync loss on."""
  config = generator_lrs2.get_config()
  config.loss.sync_weight = gan_lrs2.get_config().loss.sync_weight
  return _stage_2(config, options)


def gan_step(options: Options) -> Operation:
  """A step of stage 2 with GAN, the sync loss on."""
  return _stage_2(gan_lrs2.get_config(), options)


# --- What only this side has, beside its own reference -----------------------


def _loader(options: Options, stage: str) -> Operation:
  """Batches in this thread, from memory.

  Facts have the rates of decoding each window's pictures, and of windows that
  are the first of their clip, which is decoded whole and kept.
  """
  directory = dataset.builder_dir(options.data, 96)

  def load(cache_gb):
    split = dataset.Split(directory, "train", cache_gb)
    return input_pipeline.LoadBatch(split, WindowSpec(), stage, 0, 64, None)

  undecoded = load(0.0)
  undecoded.map(0)
  began = time.perf_counter()
  for step in range(1, 5):
    undecoded.map(step)
  decoding_rate = 4 * 64 / (time.perf_counter() - began)
  kept, step = load(8.0), iter(range(10**9))
  began = time.perf_counter()
  for i in range(len(kept.split)):
    kept.split.clip(i)
  facts = {
    "decoding_rate": decoding_rate,
    "first_of_clip_rate": len(kept.split) / (time.perf_counter() - began),
  }

  def run():
    for _ in range(8):
      kept.map(next(step))

  run()
  return Operation(run, 8 * 64, "windows", facts=facts)


def expert_input(options: Options) -> Operation:
  """Stage 1's windows from memory, on one core."""
  return _loader(options, "expert")


def generator_input(options: Options) -> Operation:
  """Stage 2's."""
  return _loader(options, "generator")


def _videos(options: Options) -> list[str]:
  found = []
  for folder, _, names in sorted(os.walk(options.videos)):
    found += [
      os.path.join(folder, name)
      for name in sorted(names)
      if name.endswith((".mp4", ".mpg", ".mkv", ".mov", ".avi"))
    ]
  return found


def _decode(paths: list[str]) -> int:
  return sum(1 for path in paths for _ in video.decode_frames(path))


def prepare_data(options: Options) -> Operation:
  """Preparation of all videos; facts has the rate of decoding them alone."""
  output = os.path.join(options.folder, "prepared")
  frames = _decode(_videos(options))
  began = time.perf_counter()
  _decode(_videos(options))
  decoding = time.perf_counter() - began

  def run():
    shutil.rmtree(output, ignore_errors=True)
    prepare.prepare(
      options.videos, output, clips.Settings(), workers=os.cpu_count()
    )

  run()
  facts = {"decoding_rate": frames / decoding}
  return Operation(run, frames, "frames", facts=facts)


def lipsync(options: Options) -> Operation:
  """The first video made to say its own speech; facts has the stages' parts."""
  config = _sized(gan_lrs2.get_config(), options).to_dict()
  config["preparation"] = json.loads(clips.Settings().as_json())
  syncer = lip_syncer.LipSyncer(_variables(options)["generator"], config)
  path = _videos(options)[0]
  out = os.path.join(options.folder, "out.mp4")
  summaries = []

  def run():
    summaries.append(syncer.write(path, path, out))

  run()
  run()
  seconds = summaries[-1].stage_seconds
  total = sum(seconds.values())
  facts = {f"part_{k}": v / total for k, v in seconds.items()}
  return Operation(run, summaries[0].frames, "frames", facts=facts)


def save(options: Options) -> Operation:
  """How long the train loop stands still while stage 2's state is saved."""
  config = _sized(gan_lrs2.get_config(), options)
  state = train_generator.create_state(config, jax.random.key(0))
  folder = os.path.join(options.folder, "save")
  shutil.rmtree(folder, ignore_errors=True)
  os.makedirs(folder)
  steps, stalls = iter(range(1, 10**6)), []

  def run():
    store = checkpoint_store.CheckpointStore(folder, 2)
    began = time.perf_counter()
    store.save(next(steps), state, config.to_dict())
    stalls.append(time.perf_counter() - began)
    store.close()

  run()
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  return Operation(
    run, size, "bytes", facts={"stall_seconds": statistics.median(stalls)}
  )


def machine(options: Options) -> Operation:
  """A matrix product; facts has the bandwidth of adding two arrays."""
  on_cpu = jax.default_backend() == "cpu"
  size = 2048 if on_cpu else 8192
  a = jnp.ones((size, size), options.precision)
  product = jax.jit(lambda a: a @ a)
  count = 2**26 if on_cpu else 2**29
  b = jnp.ones(count, jnp.float32)
  add = jax.jit(lambda b: b + 1)
  add(b).block_until_ready()
  seconds = []
  for _ in range(5):
    began = time.perf_counter()
    add(b).block_until_ready()
    seconds.append(time.perf_counter() - began)

  def run():
    product(a).block_until_ready()

  run()
  bandwidth = 2 * 4 * count / statistics.median(seconds)
  return Operation(run, 2 * size**3, "FLOP", facts={"bandwidth": bandwidth})


# Events that hold others, or only hand work out.
_CONTAINERS = ("ThunkExecutor", "while", "end", "call", "conditional")


def profile(run) -> dict[str, float]:
  """Returns the part of the operations' time that each kind of them takes.

  Args:
    run: what to trace, ready to run.

  Returns:
    The ten largest, by the first word of the compiler's name for them: on a
    CPU "convolution" and "ynn" are convolutions, "dot" matrix products (kernel
    gradients), "fusion" what is elementwise, named by what it holds.
  """
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run()
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
  lines = [(p.name, line) for p in data.planes for line in p.lines]
  chosen = [line for name, line in lines if name.startswith("/device:")]
  chosen = chosen or [x for _, x in lines if x.name.startswith("tf_XLAEigen")]
  spent: collections.Counter[str] = collections.Counter()
  for line in chosen:
    for event in line.events:
      kind = event.name.split(".")[0].split(":")[0]
      if kind not in _CONTAINERS:
        spent[kind] += event.duration_ns
  total = max(sum(spent.values()), 1)
  return {kind: time / total for kind, time in spent.most_common(10)}


def memory() -> int | None:
  """Returns the most bytes of the device that were taken."""
  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use")
