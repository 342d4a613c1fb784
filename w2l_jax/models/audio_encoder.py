"""The speech encoder that the expert and the generator share in shape.

The two have separate weights; the generator's has one residual block fewer
(original: models/syncnet.py and models/wav2lip.py, `audio_encoder`).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2l_jax.models import layers

# (channels, strides, residual blocks that follow)
STAGES = ((32, 1, 2), (64, (3, 1), 2), (128, 3, 2), (256, (3, 2), 2))
EMBEDDING_CHANNELS = 512


class AudioEncoder(nn.Module):
  """Mel window to embedding.

  Attributes:
    last_residuals: residual blocks at 256 channels: 2 in the expert, 1 in the
      generator.
    width: multiplies every channel count.
    dtype: of the computation.
  """

  last_residuals: int
  width: float = 1.0
  dtype: jnp.dtype | None = None

  @nn.compact
  def __call__(self, mel: jax.Array, train: bool) -> jax.Array:
    """Maps mel [N, F, M, 1] to [N, 1, 1, D]."""
    specs = []
    for channels, strides, residuals in STAGES[:-1]:
      specs.append((channels, strides, False))
      specs += [(channels, 1, True)] * residuals
    channels, strides, _ = STAGES[-1]
    specs.append((channels, strides, False))
    specs += [(channels, 1, True)] * self.last_residuals

    x = mel
    for i, (channels, strides, residual) in enumerate(specs):
      x = layers.ConvBlock(
        layers.scaled(channels, self.width),
        3,
        strides,
        padding=1,
        residual=residual,
        dtype=self.dtype,
        name=f"block_{i}",
      )(x, train)
    # 80 bands and 16 columns leave a 3x3 map; a longer window a wider one.
    embedding = layers.scaled(EMBEDDING_CHANNELS, self.width)
    for kernel_size in (x.shape[1:3], 1):
      i += 1
      x = layers.ConvBlock(
        embedding, kernel_size, dtype=self.dtype, name=f"block_{i}"
      )(x, train)
    return x
