"""Loops over a batch, as many images at a time as a processor's cache holds.

They slice the whole array: of a reshaped one, XLA's CPU backend would compute
what is cheap (normalisation, ReLU) anew for each use of it.  Called by
convolution.py and winograd.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def mapped(
  function: Callable[[jax.Array], jax.Array], most: float, x: jax.Array
) -> jax.Array:
  """Returns function(x), block by block.

  Args:
    function: maps [n, ...] to [n, ...], whatever n is.
    most: images of a block; it gets the largest divisor of N up to that.
    x: [N, ...].
  """
  images = _divisor(len(x), most)
  if images == len(x):
    return function(x)
  blocks = jax.lax.map(
    lambda first: function(_block(x, first, images)),
    jnp.arange(0, len(x), images),
  )
  return blocks.reshape(len(x), *blocks.shape[2:])


def summed(
  function: Callable[..., jax.Array], most: float, *arrays: jax.Array
) -> jax.Array:
  """Returns the sum of function(*arrays) over blocks.

  Args:
    function: of arrays [n, ...]; its result has no axis of images.
    most: as of `mapped`.
    *arrays: [N, ...].
  """
  n = len(arrays[0])
  images = _divisor(n, most)
  if images == n:
    return function(*arrays)

  def of_block(first):
    return function(*(_block(a, first, images) for a in arrays))

  shape = jax.eval_shape(of_block, 0)
  zeros = jnp.zeros(shape.shape, shape.dtype)
  return jax.lax.scan(
    lambda total, first: (total + of_block(first), None),
    zeros,
    jnp.arange(0, n, images),
  )[0]


def _divisor(n: int, most: float) -> int:
  """The largest divisor of n up to `most`, 1 at the least."""
  return max(k for k in range(1, n + 1) if n % k == 0 and k <= max(1, most))


def _block(x, first, images) -> jax.Array:
  return jax.lax.dynamic_slice_in_dim(x, first, images)
