"""Train steps compiled for devices that are not there, and what they take.

Shapes stand for state, batch and frozen variables: no data and no trained
expert are needed.
"""

import re
import time

import jax
import numpy as np

from w2l_jax import audio, sharding, train_expert, train_generator

# Bytes of memory of a device (cloud.google.com/tpu/docs, system architecture).
MEMORY = {
  "v4": 32 * 2**30,
  "v5e": 16 * 2**30,
  "v5p": 95 * 2**30,
  "v6e": 32 * 2**30,
}
# Of it, what a program may take.
_USABLE = 0.95
# Batches for each device and part of the width that --fit compiles.
_FIT_BATCHES, _FIT_WIDTH = (4, 8), 0.25
_COLLECTIVE = re.compile(
  r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
  r"(?:-start)?\("
)


def abstract_arguments(config, expert_config) -> tuple:
  """Returns the shapes of (state, batch, frozen) of a train step."""
  spec, size = config.windows, config.image_size
  count, frames = config.data.batch_size, spec.frames
  mel = (spec.mel_columns, audio.NUM_MELS)
  shapes = {
    "frames": ((count, frames, size, size, 3), np.uint8),
    "mel": ((count, *mel), np.float32),
  }
  frozen = {}
  if config.stage == "expert":
    module = train_expert
    shapes["in_sync"] = ((count,), np.float32)
  else:
    module = train_generator
    shapes["other"] = shapes["frames"]
    shapes["frame_mels"] = ((count, frames, *mel), np.float32)
    frozen["expert"] = jax.eval_shape(
      train_expert.make_model(expert_config).init,
      jax.random.key(0),
      *train_expert.model_inputs(expert_config),
    )
  batch = {k: jax.ShapeDtypeStruct(*v) for k, v in shapes.items()}
  state = jax.eval_shape(
    lambda rng: module.create_state(config, rng), jax.random.key(0)
  )
  return state, batch, frozen


def jitted_step(config, expert_config, mesh):
  """Returns the train step in which all of a config's losses take part."""
  if config.stage == "expert":
    step = train_expert.make_train_step(config)
  else:
    step = train_generator.make_train_step(config, expert_config)
  return sharding.jit_train_step(step, mesh)


def compile_step(config, expert_config, devices) -> tuple:
  """Returns (the compiled step, seconds that it took)."""
  mesh = sharding.make_mesh(config.data.batch_size, devices)
  started = time.monotonic()
  step = jitted_step(config, expert_config, mesh)
  lowered = step.lower(*abstract_arguments(config, expert_config))
  return lowered.compile(), time.monotonic() - started


def table(compiled) -> dict[str, str]:
  """Returns what one device holds and does in a step."""
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  found = _COLLECTIVE.findall(compiled.as_text())
  return {
    "arguments": f"{memory.argument_size_in_bytes / 1e6:.0f} MB",
    "temporaries": f"{memory.temp_size_in_bytes / 1e6:.0f} MB",
    "program": f"{memory.generated_code_size_in_bytes / 1e6:.0f} MB",
    "computation": f"{cost['flops'] / 1e12:.3f} TFLOP a step",
    "memory accessed": f"{cost['bytes accessed'] / 1e9:.2f} GB a step",
    "collectives": ", ".join(
      f"{found.count(name)} {name}" for name in sorted(set(found))
    )
    or "none",
  }


def _bytes(tree) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def largest_batch(config, expert_config, devices, memory: int) -> dict:
  """Reckons the largest batch of a device from two narrow steps.

  What a window takes beside the arguments grows with the width; gradients and
  what else does not depend on the batch is taken as once the params.

  Args:
    config: of a stage.
    expert_config: of the frozen expert.
    devices: to compile for.
    memory: bytes of one of them.

  Returns:
    {"batch": windows for each device, and what it was reckoned from}.
  """
  narrow, narrow_expert = (
    c.copy_and_resolve_references() for c in (config, expert_config)
  )
  for c in (narrow, narrow_expert):
    c.width *= _FIT_WIDTH
  temporaries = []
  for batch in _FIT_BATCHES:
    narrow.data.batch_size = batch * len(devices)
    compiled, seconds = compile_step(narrow, narrow_expert, devices)
    temporaries.append(compiled.memory_analysis().temp_size_in_bytes)
    print(
      f"width {narrow.width:g}, {batch} windows a device: "
      f"{temporaries[-1] / 1e6:.0f} MB of temporaries, {seconds:.0f} s",
      flush=True,
    )
  slope = (temporaries[1] - temporaries[0]) / (
    _FIT_BATCHES[1] - _FIT_BATCHES[0]
  )
  state, batch, frozen = abstract_arguments(config, expert_config)
  params = [
    getattr(state, name).params
    for name in ("expert", "generator", "discriminator")
    if getattr(state, name, None) is not None
  ]
  fixed = _bytes((state, frozen)) + _bytes(params)
  window = slope / _FIT_WIDTH + _bytes(batch) / config.data.batch_size
  return {
    "batch": int((_USABLE * memory - fixed) // window),
    "fixed": f"{fixed / 1e6:.0f} MB",
    "window": f"{window / 1e6:.1f} MB",
  }
