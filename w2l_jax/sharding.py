"""The mesh and where arrays lie on it; the only module that knows jax.sharding.

One axis, "data": batches are split over all devices, everything else is
replicated.  On one device this is the same code with nothing to split.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(batch_size: int, devices=None) -> Mesh:
  """Returns the mesh of all devices of all processes.

  Args:
    batch_size: of the global batch.
    devices: others than this run's.

  Raises:
    ValueError: if the batch does not divide by the devices.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if batch_size % count:
    raise ValueError(
      f"batch_size {batch_size} does not divide by the {count} devices of this "
      "run; change config.data.batch_size"
    )
  # Auto: the compiler places what the program leaves open, as jit needs.
  return jax.make_mesh(
    (count,), ("data",), axis_types=(AxisType.Auto,), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def _batched(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec("data"))


def put_replicated(mesh: Mesh, tree):
  """Puts a pytree of arrays on every device of every process.

  Every process gives the same values.
  """
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      replicated(mesh), np.asarray(x)
    ),
    tree,
  )


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Returns which rows of a global batch this process has to bring, in order.

  Args:
    mesh: of the run; devices of several processes may follow in any order.
    batch_size: of the global batch.
  """
  everywhere = _batched(mesh).addressable_devices_indices_map((batch_size,))
  rows = np.arange(batch_size)
  return np.unique(np.concatenate([rows[i] for i in everywhere.values()]))


def global_batch(mesh: Mesh, local: dict[str, np.ndarray]) -> dict:
  """Makes global arrays, split over "data", of every process's own rows."""
  return {
    key: jax.make_array_from_process_local_data(_batched(mesh), value)
    for key, value in local.items()
  }


def jit_train_step(step: Callable, mesh: Mesh) -> Callable:
  """Compiles step(state, batch, frozen) -> (state, metrics).

  The state's buffers are donated; those of the frozen networks are not, so
  they live on from step to step.  The batch may have "stop" [devices] beside
  what the step takes (see `stop_votes`); the metrics then have its greatest.
  """
  everywhere = replicated(mesh)

  def voted_step(state, batch, frozen):
    votes = batch.pop("stop", None)
    state, metrics = step(state, batch, frozen)
    if votes is not None:
      metrics = {**metrics, "stop": jnp.max(votes)}
    return state, metrics

  return jax.jit(
    voted_step,
    in_shardings=(everywhere, _batched(mesh), everywhere),
    out_shardings=(everywhere, everywhere),
    donate_argnums=0,
  )


def stop_votes(stop: bool) -> np.ndarray:
  """Returns this process's share of a batch's "stop": 1 if it was asked to.

  It travels with the batch, so that all processes hear of a signal to one of
  them at the same step, without messages of their own.
  """
  return np.full(jax.local_device_count(), stop, np.float32)


def all_agree(yes: bool) -> bool:
  """Whether all processes say yes; each of them must ask."""
  if jax.process_count() == 1:
    return yes
  return bool(np.all(multihost_utils.process_allgather(np.asarray(yes))))


def same_everywhere(value: int) -> bool:
  """Whether all processes give the same number; each of them must ask."""
  if jax.process_count() == 1:
    return True
  values = multihost_utils.process_allgather(np.asarray(value, np.uint32))
  return bool(np.all(values == values[0]))


def jit_eval_step(step: Callable, mesh: Mesh) -> Callable:
  """Compiles step(variables, batch, frozen) -> outputs; nothing is donated.

  In full float32, which on a TPU or a recent GPU is not the default: figures of
  two runs then differ by what was learnt.
  """
  everywhere = replicated(mesh)

  def precise_step(*args):
    with jax.default_matmul_precision("float32"):
      return step(*args)

  return jax.jit(
    precise_step,
    in_shardings=(everywhere, _batched(mesh), everywhere),
    out_shardings=everywhere,
  )


def must_block_each_step() -> bool:
  """Whether steps must not be dispatched ahead.

  With several devices in one CPU process, programs with collectives that run
  at the same time deadlock.
  """
  return jax.default_backend() == "cpu" and jax.local_device_count() > 1
