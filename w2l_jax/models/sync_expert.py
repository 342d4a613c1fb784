"""The expert sync discriminator (original: models/syncnet.py, SyncNet_color).

Layers only: its loss is in losses.py, its training in train_expert.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from w2l_jax.models import layers
from w2l_jax.models.audio_encoder import AudioEncoder

# (channels, residual blocks that follow) of the stride-2 stages.  The fourth
# ends at 3x3 for 96-pixel faces; larger faces repeat it, smaller ones drop it.
FACE_STAGES = ((128, 3), (256, 2), (512, 2), (512, 0))
EMBEDDING_CHANNELS = 512


class FaceEncoder(nn.Module):
  """Lower halves of consecutive frames to embedding."""

  width: float = 1.0
  image_size: int = 96
  dtype: jnp.dtype | None = None
  remat: bool = False

  @nn.compact
  def __call__(self, faces: jax.Array, train: bool) -> jax.Array:
    """Maps faces [B, S/2, S, 3 T] to [B, 1, 1, D]."""
    n = layers.num_stages(self.image_size, final_size=6)
    stages = (FACE_STAGES + FACE_STAGES[-1:] * n)[:n]
    # (channels, kernel size, strides, padding, residual)
    specs = [
      (32, 7, 1, 3, False),
      # Padding 1 for a 5x5 kernel, as in the original: 48x96 becomes 46x47.
      (64, 5, (1, 2), 1, False),
      (64, 3, 1, 1, True),
      (64, 3, 1, 1, True),
    ]
    for channels, residuals in stages:
      specs.append((channels, 3, 2, 1, False))
      specs += [(channels, 3, 1, 1, True)] * residuals
    specs += [
      (EMBEDDING_CHANNELS, 3, 1, 0, False),
      (EMBEDDING_CHANNELS, 1, 1, 0, False),
    ]
    ConvBlock = layers.rematerialized(layers.ConvBlock, self.remat)
    x = faces
    for i, (channels, kernel_size, strides, padding, residual) in enumerate(
      specs
    ):
      x = ConvBlock(
        layers.scaled(channels, self.width),
        kernel_size,
        strides,
        padding,
        residual,
        self.dtype,
        name=f"block_{i}",
      )(x, train)
    return x


class SyncExpert(nn.Module):
  """Tells whether speech and five consecutive lower-half faces belong together.

  Both embeddings come out of a ReLU, so their cosine lies in [0, 1].

  Attributes:
    width: multiplies every channel count; 1 is the original.
    image_size: side of the full face crops: 96 is the original; each doubling
      adds one stride-2 stage to the face encoder, each halving removes one.
    dtype: of the computation; the embeddings are normalised in float32.
    temperature: None, or where the contrastive loss's learnt temperature
      begins; its inverse's logarithm is then the parameter `logit_scale`.
    remat: whether the face encoder's blocks are computed anew for the gradient.
  """

  width: float = 1.0
  image_size: int = 96
  dtype: jnp.dtype | None = None
  temperature: float | None = None
  remat: bool = False

  def setup(self):
    """Builds the two encoders."""
    if self.temperature is not None:
      start = nn.initializers.constant(-np.log(self.temperature))
      self.logit_scale = self.param("logit_scale", start, ())
    self.audio_encoder = AudioEncoder(2, self.width, self.dtype)
    self.face_encoder = FaceEncoder(
      self.width, self.image_size, self.dtype, self.remat
    )

  def __call__(
    self, mel: jax.Array, faces: jax.Array, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """Embeds speech and faces.

    Args:
      mel: [B, F, M, 1], normalised log-mel.
      faces: [B, S/2, S, 3 T], lower halves of T frames on the channel axis,
        frame-major, BGR, [0, 1].
      train: whether BatchNorm uses (and `batch_stats`, if mutable, collects)
        the batch's statistics.

    Returns:
      (audio_embedding, face_embedding), each [B, D], unit length, float32.
    """
    return self.embed_audio(mel, train), self.embed_faces(faces, train)

  def embed_audio(self, mel: jax.Array, train: bool = False) -> jax.Array:
    """Embeds speech alone, see `__call__`."""
    audio = self.audio_encoder(mel, train)
    return layers.l2_normalize(audio.reshape(audio.shape[0], -1))

  def embed_faces(self, faces: jax.Array, train: bool = False) -> jax.Array:
    """Embeds faces alone, see `__call__`."""
    expected = (self.image_size // 2, self.image_size)
    if faces.shape[1:3] != expected:
      raise ValueError(
        f"faces are {faces.shape}, expected [B, {expected[0]}, {expected[1]}, "
        f"3 T]: the lower halves of {self.image_size}-pixel faces"
      )
    face = self.face_encoder(faces, train)
    return layers.l2_normalize(face.reshape(face.shape[0], -1))
