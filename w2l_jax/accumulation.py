"""A batch worked through in parts, for batches larger than the memory."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def accumulated(
  part_fn: Callable, carry, batch: dict, parts: int, group: int = 1
):
  """Works through a batch in parts, one after another, to save memory.

  Args:
    part_fn: (carry, part) -> (carry, sums), a pytree of what is to be averaged
      over the parts, gradients and losses.
    carry: what goes from one part to the next, BatchNorm's statistics.
    batch: arrays [B, ...].
    parts: how many; 1 is the plain step.
    group: rows that stay together.

  Returns:
    (the last carry, the mean of `sums`).  Where `part_fn` takes means over its
    rows, the result is that of the whole batch.

  Raises:
    ValueError: if the batch does not divide.
  """
  if parts == 1:
    return part_fn(carry, batch)
  rows = len(jax.tree.leaves(batch)[0])
  if rows % (parts * group):
    raise ValueError(
      f"batch_size {rows} does not divide by config.train.microbatches {parts}"
      + (f" times {group} windows of a clip" if group > 1 else "")
    )

  def split(x):
    # Every part has rows of every device, so that none is moved.
    x = x.reshape(-1, parts, group, *x.shape[1:])
    return jnp.moveaxis(x, 1, 0).reshape(parts, -1, *x.shape[3:])

  def step(state, part):
    carry, sums = state
    carry, found = part_fn(carry, part)
    return (carry, jax.tree.map(jnp.add, sums, found)), None

  batch = jax.tree.map(split, batch)
  shapes = jax.eval_shape(part_fn, carry, jax.tree.map(lambda x: x[0], batch))[
    1
  ]
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def scan(unroll):
    def run(state, batch):
      return jax.lax.scan(step, state, batch, unroll=unroll)[0]

    return run

  # XLA's CPU backend has no fast convolutions inside loops.
  carry, sums = jax.lax.platform_dependent(
    (carry, zeros), batch, cpu=scan(parts), default=scan(1)
  )
  return carry, jax.tree.map(lambda x: x / parts, sums)
