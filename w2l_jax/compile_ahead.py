"""Train steps compiled for devices that are not there, and what they take.

Shapes stand for state, batch and frozen variables: no data and no trained
expert are needed.
"""

import math
import re
import time
from collections.abc import Callable, Iterator

import jax
import jax.extend
import numpy as np
from jax.interpreters import partial_eval

from w2l_jax import (
  absent_devices,
  audio,
  memory_traffic,
  sharding,
  train_expert,
  train_generator,
)

# Of a device's memory, what a program may take.  Of a GPU's, JAX takes three
# quarters (XLA_PYTHON_CLIENT_MEM_FRACTION).
_USABLE, _USABLE_OF_GPU = 0.95, 0.75
# Windows for each GPU that --fit compiles.
_FIT_BATCHES_OF_GPU = (8, 16)
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
  """Returns the shapes of (state, batch, frozen) of a train step.

  Raises:
    ValueError: if the expert is for faces of another size.
  """
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
    if expert_config.image_size != size:
      raise ValueError(
        f"config has faces of {size} pixels, expert_config of "
        f"{expert_config.image_size}; give --expert_config of the same size"
      )
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
  memory, text = compiled.memory_analysis(), compiled.as_text()
  found = _COLLECTIVE.findall(text)
  rows = {
    "arguments": f"{memory.argument_size_in_bytes / 1e6:.0f} MB",
    "temporaries": f"{memory.temp_size_in_bytes / 1e6:.0f} MB",
  }
  cost = compiled.cost_analysis()
  if cost:
    rows["program"] = f"{memory.generated_code_size_in_bytes / 1e6:.0f} MB"
    rows["computation"] = f"{cost['flops'] / 1e12:.3f} TFLOP a step"
    accessed = cost["bytes accessed"]
  else:  # Of a GPU's program.
    accessed = memory_traffic.bytes_accessed(text)
  rows["memory accessed"] = (
    f"{accessed / 1e9:.2f} GB a step"
    if accessed >= 1e9
    else f"{accessed / 1e6:.1f} MB a step"
  )
  rows["collectives"] = (
    ", ".join(f"{found.count(name)} {name}" for name in sorted(set(found)))
    or "none"
  )
  return rows


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


def largest_batch(config, expert_config, devices, topology: str) -> dict:
  """Reckons the largest batch of a device.

  Args:
    config: of a stage.
    expert_config: of the frozen expert.
    devices: to compile for, of the topology.
    topology: of them, as `absent_devices.devices` takes it.

  Returns:
    {"batch": windows for each device; "temporaries", "arguments": bytes of one
    with that batch}.

  Raises:
    ValueError: if not even one window fits.
  """
  memory = absent_devices.MEMORY[absent_devices.kind_of(topology)]
  if absent_devices.is_gpu(topology):
    at = _line_of_gpu(config, expert_config, devices)
    usable = _USABLE_OF_GPU * memory
  else:
    at = _line_of_tpu(config, expert_config, devices)
    usable = _USABLE * memory
  batch = 0
  while at(batch + 1).sum() <= usable:
    batch += 1
  if not batch:
    raise ValueError(
      f"one window of this config takes {at(1).sum() / 1e9:.1f} GB, of "
      f"{usable / 1e9:.1f} that {topology} has for each device"
    )
  temporaries, arguments = at(batch)
  return {
    "batch": batch,
    "temporaries": int(temporaries),
    "arguments": int(arguments),
  }


def _line_of_gpu(config, expert_config, devices) -> Callable:
  """Returns at(batch): [temporaries, arguments], bytes of one GPU.

  There, temporaries grow evenly; two full steps are compiled.
  """
  found = []
  for batch in _FIT_BATCHES_OF_GPU:
    c = config.copy_and_resolve_references()
    c.data.batch_size = batch * len(devices)
    compiled, seconds = compile_step(c, expert_config, devices)
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    c.data.batch_size = batch
    arguments = _bytes(abstract_arguments(c, expert_config))
    found.append(np.array([temporaries, arguments]))
    print(
      f"{batch} windows a device: {temporaries / 1e6:.0f} MB of temporaries, "
      f"{seconds:.0f} s",
      flush=True,
    )
  first, second = _FIT_BATCHES_OF_GPU
  slope = (found[1] - found[0]) / (second - first)
  return lambda batch: found[0] + slope * (batch - first)


def _line_of_tpu(config, expert_config, devices) -> Callable:
  """Returns at(batch): [temporaries, arguments], bytes of one TPU.

  From a narrow step: what its temporaries are of what its convolutions put out,
  times a measured factor, is taken as the full step's share.
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

  return at
