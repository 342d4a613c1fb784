"""The visual quality discriminator (original: models/wav2lip.py).

There Wav2Lip_disc_qual.  Layers only: losses in losses.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2l_jax.models import layers

# (channels, kernel size) of the stride-2 stages; each is followed by a
# convolution of the same kind and stride 1.  The last ends at 3x3 for 96-pixel
# faces; larger faces repeat it, smaller ones drop it.
STAGES = ((128, 5), (256, 5), (512, 3), (512, 3))
EMBEDDING_CHANNELS = 512


class QualityDiscriminator(nn.Module):
  """Tells real lower halves of faces from generated ones; no normalisation.

  Attributes:
    width: multiplies every channel count; 1 is the original.
    image_size: side of the full face crops, as in Generator.
    dtype: of the computation; the logits are float32.
    initializer: "torch", the original's, with which the logits hardly depend on
      the picture for the first hundreds of steps, or "he" (see layers.conv);
      the last layer's is PyTorch's in both.
  """

  width: float = 1.0
  image_size: int = 96
  dtype: jnp.dtype | None = None
  initializer: str = "torch"

  @nn.compact
  def __call__(self, lower_half: jax.Array) -> jax.Array:
    """Maps lower_half [N, S/2, S, 3], BGR in [0, 1], to logits [N, 1].

    The original's output is the sigmoid of these logits.
    """
    expected = (self.image_size // 2, self.image_size, 3)
    if lower_half.shape[1:] != expected:
      raise ValueError(
        f"lower_half is {lower_half.shape}, expected [N, {expected[0]}, "
        f"{expected[1]}, 3]: the lower halves of {self.image_size}-pixel faces"
      )
    n = layers.num_stages(self.image_size, final_size=6)
    # Blocks of (channels, kernel size, strides, padding).
    blocks = [[(32, 7, 1, 3)], [(64, 5, (1, 2), 2), (64, 5, 1, 2)]]
    for channels, kernel_size in (STAGES + STAGES[-1:] * n)[:n]:
      padding = kernel_size // 2
      blocks.append(
        [
          (channels, kernel_size, 2, padding),
          (channels, kernel_size, 1, padding),
        ]
      )
    blocks.append(
      [(EMBEDDING_CHANNELS, 3, 1, 0), (EMBEDDING_CHANNELS, 1, 1, 0)]
    )

    x = lower_half
    for i, block in enumerate(blocks):
      for j, (channels, kernel_size, strides, padding) in enumerate(block):
        x = layers.LeakyConvBlock(
          layers.scaled(channels, self.width),
          kernel_size,
          strides,
          padding,
          self.dtype,
          self.initializer,
          name=f"face_encoder_blocks_{i}_{j}",
        )(x)
    x = layers.conv(x, 1, 1, dtype=self.dtype, name="binary_pred")
    return x.reshape(-1, 1).astype(jnp.promote_types(x.dtype, jnp.float32))
