"""Train steps compiled for devices that are not there, and what they take.

Shapes stand for state, batch and frozen variables: no data and no trained
expert are needed.
"""

import math
import re
import time
from collections.abc import Iterator

import jax
import jax.extend
import numpy as np
from jax.interpreters import partial_eval

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
# Windows for each device and part of the width that --fit compiles.
_FIT_BATCH, _FIT_WIDTH = 8, 0.25
# So much more the full step takes for what its convolutions put out: with GAN,
# 2751 MB for 3316 (16 windows a device), the narrow one 730 MB for 1180 (8).
_FULL_WIDTH_SHARE = 1.34
# What one axis of an array in a TPU's memory is filled up to.
_LANES = 128
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


def laid_out(shape: tuple[int, ...], itemsize: int) -> int:
  """Returns the bytes that a convolution's output takes in a TPU's memory.

  There, one axis is filled up to a multiple of 128 numbers and another to one
  of 32 bytes.  Of pictures [N, H, W, C], channels are the first or the pictures
  are, whichever takes less.

  Args:
    shape: of the output, as the networks lay it out.
    itemsize: bytes of a number.
  """
  if len(shape) != 4:
    return math.prod(shape) * itemsize
  rows = 32 // itemsize

  def filled(count, unit):
    return -(-count // unit) * unit

  n, h, w, c = shape
  return itemsize * min(
    h * w * filled(n, _LANES) * filled(c, rows),
    n * h * filled(w, rows) * filled(c, _LANES),
    h * w * filled(n, rows) * filled(c, _LANES),
  )


def _convolutions(jaxpr) -> Iterator[jax.core.ShapedArray]:
  """Yields the outputs of all convolutions, also of inner functions.

  Where `jax.lax.platform_dependent` has something else for CPUs, those of the
  other platforms.
  """
  platforms = set()
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":
      platforms.update(equation.outvars)
    elif name == "conv_general_dilated":
      yield equation.outvars[0].aval
    elif name == "cond" and equation.invars[0] in platforms:
      params = {"branches": params["branches"][-1:]}  # The default is the last.
    for inner in jax.extend.core.jaxprs_in_params(params):
      yield from _convolutions(inner)


def convolution_bytes(config, expert_config) -> int:
  """Returns what all convolutions of a step put out, on one device.

  Forwards and backwards, as a TPU lays it out.  Not all of it is there at the
  same time, but as large a part of it at any width and batch.
  """
  mesh = sharding.make_mesh(config.data.batch_size, jax.devices()[:1])
  traced = jitted_step(config, expert_config, mesh).trace(
    *abstract_arguments(config, expert_config)
  )
  jaxpr = traced.jaxpr.jaxpr
  # Without what the gradients of the convolutions trace and do not use.
  jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return sum(laid_out(x.shape, x.dtype.itemsize) for x in _convolutions(jaxpr))


def largest_batch(config, expert_config, devices, memory: int) -> dict:
  """Reckons the largest batch of a device from a narrow step.

  What its temporaries are of what its convolutions put out, times a measured
  factor, is taken as the full step's share.

  Args:
    config: of a stage.
    expert_config: of the frozen expert.
    devices: to compile for.
    memory: bytes of one of them.

  Returns:
    {"batch": windows for each device; "temporaries", "arguments": bytes of one
    with that batch}.
  """
  config, expert_config, narrow, narrow_expert = (
    c.copy_and_resolve_references() for c in (config, expert_config) * 2
  )
  for c in (narrow, narrow_expert):
    c.width *= _FIT_WIDTH
  narrow.data.batch_size = _FIT_BATCH * len(devices)
  compiled, seconds = compile_step(narrow, narrow_expert, devices)
  temporaries = compiled.memory_analysis().temp_size_in_bytes
  narrow.data.batch_size = _FIT_BATCH
  share = temporaries / convolution_bytes(narrow, narrow_expert)
  share *= _FULL_WIDTH_SHARE
  print(
    f"width {narrow.width:g}, {_FIT_BATCH} windows a device: "
    f"{temporaries / 1e6:.0f} MB of temporaries, {seconds:.0f} s",
    flush=True,
  )

  # With a multiple of 128 windows nothing is filled up in the batch's axis, so
  # that the bytes lie on a line.
  found = []
  for batch in (_LANES, 2 * _LANES):
    config.data.batch_size = batch
    state, rows, frozen = abstract_arguments(config, expert_config)
    found.append(
      np.array(
        [
          share * convolution_bytes(config, expert_config),
          _bytes((state, rows, frozen)),
        ]
      )
    )
  slope = (found[1] - found[0]) / _LANES

  def at(batch):
    pictures = 1 if config.stage == "expert" else config.windows.frames
    filled = -(-batch * pictures // _LANES) * _LANES / pictures
    return found[0] + slope * (np.array([filled, batch]) - _LANES)

  batch = 0
  while at(batch + 1).sum() <= _USABLE * memory:
    batch += 1
  return {
    "batch": batch,
    "temporaries": int(at(batch)[0]),
    "arguments": int(at(batch)[1]),
  }
