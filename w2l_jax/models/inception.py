"""The Inception v3 whose features FID compares (Szegedy et al. 2015).

Layers only; its weights are brought by the user (metric_weights.py).  It is
TensorFlow's of 2015 as pytorch-fid has it: torchvision's but for average pools
that do not count the padding and a max pool in the last block.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2l_jax.models import layers

SIZE = 299
FEATURES = 2048
_EPSILON = 1e-3  # Of its BatchNorm.


class _Conv(nn.Module):
  """Convolution without bias, BatchNorm, ReLU."""

  features: int
  kernel: tuple[int, int]
  strides: int
  padding: tuple[int, int]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.Conv(
      self.features,
      self.kernel,
      (self.strides, self.strides),
      [(p, p) for p in self.padding],
      use_bias=False,
      name="conv",
    )(x)
    x = nn.BatchNorm(use_running_average=True, epsilon=_EPSILON, name="bn")(x)
    return nn.relu(x)


def _average(x: jax.Array) -> jax.Array:
  return nn.avg_pool(
    x, (3, 3), (1, 1), [(1, 1), (1, 1)], count_include_pad=False
  )


def _max(x: jax.Array) -> jax.Array:
  return nn.max_pool(x, (3, 3), (1, 1), [(1, 1), (1, 1)])


def _halved(x: jax.Array) -> jax.Array:
  return nn.max_pool(x, (3, 3), (2, 2))


# A branch is a chain of (name, channels, kernel, strides): padding keeps the
# size at stride 1 and is none at stride 2.  A tuple of them inside a chain is a
# fork whose ends are concatenated.
def _a(pool):
  return (
    (("branch1x1", 64, 1, 1),),
    (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)),
    (
      ("branch3x3dbl_1", 64, 1, 1),
      ("branch3x3dbl_2", 96, 3, 1),
      ("branch3x3dbl_3", 96, 3, 1),
    ),
    (_average, ("branch_pool", pool, 1, 1)),
  )


def _c(narrow):
  return (
    (("branch1x1", 192, 1, 1),),
    (
      ("branch7x7_1", narrow, 1, 1),
      ("branch7x7_2", narrow, (1, 7), 1),
      ("branch7x7_3", 192, (7, 1), 1),
    ),
    (
      ("branch7x7dbl_1", narrow, 1, 1),
      ("branch7x7dbl_2", narrow, (7, 1), 1),
      ("branch7x7dbl_3", narrow, (1, 7), 1),
      ("branch7x7dbl_4", narrow, (7, 1), 1),
      ("branch7x7dbl_5", 192, (1, 7), 1),
    ),
    (_average, ("branch_pool", 192, 1, 1)),
  )


def _e(pool):
  return (
    (("branch1x1", 320, 1, 1),),
    (
      ("branch3x3_1", 384, 1, 1),
      (("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1)),
    ),
    (
      ("branch3x3dbl_1", 448, 1, 1),
      ("branch3x3dbl_2", 384, 3, 1),
      (
        ("branch3x3dbl_3a", 384, (1, 3), 1),
        ("branch3x3dbl_3b", 384, (3, 1), 1),
      ),
    ),
    (pool, ("branch_pool", 192, 1, 1)),
  )


_STEM = (
  ("Conv2d_1a_3x3", 32, 3, 2),
  ("Conv2d_2a_3x3", 32, 3, None),
  ("Conv2d_2b_3x3", 64, 3, 1),
  _halved,
  ("Conv2d_3b_1x1", 80, 1, 1),
  ("Conv2d_4a_3x3", 192, 3, None),
  _halved,
)
_BLOCKS = {
  "Mixed_5b": _a(32),
  "Mixed_5c": _a(64),
  "Mixed_5d": _a(64),
  "Mixed_6a": (
    (("branch3x3", 384, 3, 2),),
    (
      ("branch3x3dbl_1", 64, 1, 1),
      ("branch3x3dbl_2", 96, 3, 1),
      ("branch3x3dbl_3", 96, 3, 2),
    ),
    (_halved,),
  ),
  "Mixed_6b": _c(128),
  "Mixed_6c": _c(160),
  "Mixed_6d": _c(160),
  "Mixed_6e": _c(192),
  "Mixed_7a": (
    (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)),
    (
      ("branch7x7x3_1", 192, 1, 1),
      ("branch7x7x3_2", 192, (1, 7), 1),
      ("branch7x7x3_3", 192, (7, 1), 1),
      ("branch7x7x3_4", 192, 3, 2),
    ),
    (_halved,),
  ),
  "Mixed_7b": _e(_average),
  "Mixed_7c": _e(_max),
}


def _chain(x: jax.Array, steps, width: float) -> jax.Array:
  for step in steps:
    if callable(step):
      x = step(x)
    elif isinstance(step[0], tuple):
      x = jnp.concatenate([_chain(x, (fork,), width) for fork in step], axis=-1)
    else:
      name, channels, kernel, strides = step
      kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
      # None: stride 1 without padding.
      padding = tuple(k // 2 for k in kernel) if strides == 1 else (0, 0)
      x = _Conv(
        layers.scaled(channels, width), kernel, strides or 1, padding, name=name
      )(x)
  return x


class _Block(nn.Module):
  """Branches side by side."""

  branches: tuple
  width: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return jnp.concatenate(
      [_chain(x, branch, self.width) for branch in self.branches], axis=-1
    )


class Inception(nn.Module):
  """Pictures to the features that FID compares.

  Attributes:
    width: multiplies every channel count; 1 is the original.
  """

  width: float = 1.0

  @nn.compact
  def __call__(self, pictures: jax.Array) -> jax.Array:
    """Maps [N, H, W, 3] RGB in [0, 1] to [N, 2048 width].

    They are enlarged to 299x299 first, as pytorch-fid does.
    """
    shape = (len(pictures), SIZE, SIZE, 3)
    # PyTorch's bilinear interpolation does not smooth where it shrinks.
    x = jax.image.resize(pictures, shape, "bilinear", antialias=False)
    x = _chain(2.0 * x - 1.0, _STEM, self.width)
    for name, branches in _BLOCKS.items():
      x = _Block(branches, self.width, name=name)(x)
    return jnp.mean(x, axis=(1, 2))
