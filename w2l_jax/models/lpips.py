"""LPIPS, the learned perceptual distance of pictures (Zhang et al. 2018).

Layers only; its weights are brought by the user (metric_weights.py).  Original:
the lpips package, version 0.1 of the measure, nets "alex" and "vgg".
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

# What torchvision's classifiers expect, in [-1, 1], RGB.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
# Slices of torchvision's `features`, each ending at a compared map:
# (number there, channels, kernel, strides, padding) of each convolution.
SLICES = {
  "alex": (
    ((0, 64, 11, 4, 2),),
    ((3, 192, 5, 1, 2),),
    ((6, 384, 3, 1, 1),),
    ((8, 256, 3, 1, 1),),
    ((10, 256, 3, 1, 1),),
  ),
  "vgg": (
    ((0, 64, 3, 1, 1), (2, 64, 3, 1, 1)),
    ((5, 128, 3, 1, 1), (7, 128, 3, 1, 1)),
    ((10, 256, 3, 1, 1), (12, 256, 3, 1, 1), (14, 256, 3, 1, 1)),
    ((17, 512, 3, 1, 1), (19, 512, 3, 1, 1), (21, 512, 3, 1, 1)),
    ((24, 512, 3, 1, 1), (26, 512, 3, 1, 1), (28, 512, 3, 1, 1)),
  ),
}
# (side, stride) of the max pooling, and the slices that begin with one.
_POOLS = {"alex": (3, 2, (1, 2)), "vgg": (2, 2, (1, 2, 3, 4))}
# The least side that leaves "alex" a map after its two poolings.
SMALLEST = 32


class LPIPS(nn.Module):
  """Perceptual distance: 0 for equal pictures.

  Attributes:
    net: "alex" (what is usually reported) or "vgg".
  """

  net: str = "alex"

  @nn.compact
  def __call__(self, a: jax.Array, b: jax.Array) -> jax.Array:
    """Distances of pictures a and b: [N, H, W, 3] RGB in [0, 1] to [N]."""
    if min(a.shape[1:3]) < SMALLEST:
      raise ValueError(
        f"pictures are {a.shape}, expected sides of at least {SMALLEST}"
      )
    x = 2.0 * jnp.concatenate([a, b]) - 1.0
    x = (x - jnp.array(_SHIFT)[None, None, None]) / jnp.array(_SCALE)[
      None, None, None
    ]
    side, stride, pooled = _POOLS[self.net]
    total = 0.0
    for i, convs in enumerate(SLICES[self.net]):
      if i in pooled:
        x = nn.max_pool(x, (side, side), (stride, stride))
      for number, channels, kernel, strides, padding in convs:
        x = nn.Conv(
          channels,
          (kernel, kernel),
          (strides, strides),
          [(padding, padding)] * 2,
          name=f"slice{i + 1}_{number}",
        )(x)
        x = nn.relu(x)
      norm = jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True))
      unit = x / (norm + 1e-10)
      difference = (unit[: len(a)] - unit[len(a) :]) ** 2
      weights = self.param(
        f"lin{i}", nn.initializers.uniform(), (difference.shape[-1],)
      )
      total += jnp.mean(difference @ weights, axis=(1, 2))
    return total
