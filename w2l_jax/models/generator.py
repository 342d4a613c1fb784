"""The lip-sync generator (original: models/wav2lip.py, Wav2Lip).

Layers only: its losses are in losses.py, its training in train_generator.py,
its use on video in inference.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2l_jax.models import layers
from w2l_jax.models.audio_encoder import AudioEncoder

# Encoder: (channels, residual blocks) of each stride-2 stage, from the input
# down; 96-pixel faces have five, ending at 3x3.  Larger faces repeat the last
# at the deep end, smaller ones drop it.
ENCODER_STEM = 16
ENCODER_STAGES = ((32, 2), (64, 3), (128, 2), (256, 2), (512, 1))
# Decoder: channels of the doubling stages from the output up.
DECODER_CHANNELS = (64, 128, 256, 384, 512)
DECODER_RESIDUALS = 2
OUTPUT_CHANNELS = 32
EMBEDDING_CHANNELS = 512


class Generator(nn.Module):
  """Draws the face that says the speech, from a masked and a reference frame.

  Attributes:
    width: multiplies every channel count except the three of the output.
    image_size: side of the face crops: 96 is the original; each doubling adds
      one stride-2 stage to encoder and decoder, each halving removes one.
    speech_encoder_frozen: whether the speech encoder is as in eval mode also
      in training, and passes no gradient.
    dtype: of the computation; the output is float32.
    remat: whether blocks are computed anew for the gradient, which takes a
      third more time and far less memory.
    for_inference: whether faster algorithms may round more; see
      convolution.conv2d_for_inference.
  """

  width: float = 1.0
  image_size: int = 96
  speech_encoder_frozen: bool = False
  dtype: jnp.dtype | None = None
  remat: bool = False
  for_inference: bool = False

  @nn.compact
  def __call__(
    self, mel: jax.Array, faces: jax.Array, train: bool = False
  ) -> jax.Array:
    """Generates frames.

    Args:
      mel: [N, F, M, 1], the normalised log-mel window of each frame.
      faces: [N, S, S, 6], BGR in [0, 1]: the target with its lower half
        zeroed, then the reference.
      train: whether BatchNorm uses (and `batch_stats`, if mutable, collects)
        the batch's statistics.

    Returns:
      [N, S, S, 3] float32, BGR in [0, 1].
    """
    size = self.image_size
    if faces.shape[1:] != (size, size, 6):
      raise ValueError(
        f"faces are {faces.shape}, expected [N, {size}, {size}, 6]: masked "
        "target and reference on the channel axis"
      )
    n = layers.num_stages(size, final_size=3)
    stages = (ENCODER_STAGES + ENCODER_STAGES[-1:] * n)[:n]

    ConvBlock, ConvTransposeBlock = (
      layers.rematerialized(kind, self.remat)
      for kind in (layers.ConvBlock, layers.ConvTransposeBlock)
    )

    def block(name, x, channels, kernel_size, strides=1, padding=0, res=False):
      return ConvBlock(
        layers.scaled(channels, self.width),
        kernel_size,
        strides,
        padding,
        res,
        self.dtype,
        self.for_inference,
        name=name,
      )(x, train)

    # Encoder: the outputs of all stages are the decoder's skips.
    name = "face_encoder_blocks_{}_{}".format
    x = block(name(0, 0), faces, ENCODER_STEM, 7, padding=3)
    skips = [x]
    for i, (channels, residuals) in enumerate(stages, start=1):
      x = block(name(i, 0), x, channels, 3, strides=2, padding=1)
      for j in range(1, residuals + 1):
        x = block(name(i, j), x, channels, 3, padding=1, res=True)
      skips.append(x)
    x = block(name(n + 1, 0), x, EMBEDDING_CHANNELS, 3)
    x = block(name(n + 1, 1), x, EMBEDDING_CHANNELS, 1)
    skips.append(x)

    # Decoder: starts from the speech; a skip is concatenated after each block.
    name = "face_decoder_blocks_{}_{}".format
    x = AudioEncoder(1, self.width, self.dtype, name="audio_encoder")(
      mel, train and not self.speech_encoder_frozen
    )
    if self.speech_encoder_frozen:
      x = jax.lax.stop_gradient(x)
    x = block(name(0, 0), x, EMBEDDING_CHANNELS, 1)
    x = jnp.concatenate([x, skips.pop()], axis=-1)
    doubling = (DECODER_CHANNELS + DECODER_CHANNELS[-1:] * n)[:n][::-1]
    for i, channels in enumerate((EMBEDDING_CHANNELS, *doubling), start=1):
      x = ConvTransposeBlock(
        layers.scaled(channels, self.width),
        self.dtype,
        name=name(i, 0),
      )(x, train)
      for j in range(1, (1 if i == 1 else DECODER_RESIDUALS) + 1):
        x = block(name(i, j), x, channels, 3, padding=1, res=True)
      x = jnp.concatenate([x, skips.pop()], axis=-1)

    x = block("output_block_0", x, OUTPUT_CHANNELS, 3, padding=1)
    x = layers.conv(x, 3, 1, dtype=self.dtype, name="output_block_1")
    return nn.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
