"""SyncNet, the network that LSE-D and LSE-C are read from (Chung 2016).

Not the expert that a generator learns from.  Layers only, for use and not for
training: its weights are the published ones (metric_weights.py).  Original:
syncnet_python, SyncNetModel.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from w2l_jax.models import layers

FRAMES = 5
FACE_SIZE = 224
MFCC_COLUMNS = 20
_CHANNELS = 512
EMBEDDING_CHANNELS = 1024

# In the order of the original's nn.Sequential, whose numbers are in its keys.
# ("conv", channels, kernel, strides, padding): with BatchNorm and ReLU, three
# numbers; ("pool", window, strides, padding): one.
_LIPS = (
  ("conv", 96, 7, 2, 0),
  ("pool", 3, 2, 0),
  ("conv", 256, 5, 2, 1),
  ("pool", 3, 2, 1),
  ("conv", 256, 3, 1, 1),
  ("conv", 256, 3, 1, 1),
  ("conv", 256, 3, 1, 1),
  ("pool", 3, 2, 0),
  ("conv", _CHANNELS, 6, 1, 0),
)
_SPEECH = (
  ("conv", 64, 3, 1, 1),
  ("pool", 1, 1, 0),
  ("conv", 192, 3, 1, 1),
  ("pool", 3, (1, 2), 0),
  ("conv", 384, 3, 1, 1),
  ("conv", 256, 3, 1, 1),
  ("conv", 256, 3, 1, 1),
  ("pool", 3, 2, 0),
  ("conv", _CHANNELS, (5, 4), 1, 0),
)


def _batch_norm(name: str) -> nn.BatchNorm:
  return nn.BatchNorm(
    use_running_average=True, epsilon=layers.BATCH_NORM_EPSILON, name=name
  )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
  return (value, value) if isinstance(value, int) else value


class _Stream(nn.Module):
  """The convolutions of one stream."""

  specs: tuple
  width: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    i = 0
    for kind, *spec in self.specs:
      if kind == "pool":
        window, strides, padding = spec
        x = nn.max_pool(
          x, _pair(window), _pair(strides), [(padding, padding)] * 2
        )
        i += 1
        continue
      channels, kernel, strides, padding = spec
      channels = layers.scaled(channels, self.width)
      x = layers.conv(x, channels, kernel, strides, padding, name=f"layer_{i}")
      x = nn.relu(_batch_norm(f"layer_{i + 1}")(x))
      i += 3
    return x


class _Head(nn.Module):
  """Two layers from a stream's end to the embedding."""

  width: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.reshape(len(x), -1)
    x = nn.Dense(layers.scaled(_CHANNELS, self.width), name="layer_0")(x)
    x = nn.relu(_batch_norm("layer_1")(x))
    return nn.Dense(
      layers.scaled(EMBEDDING_CHANNELS, self.width), name="layer_3"
    )(x)


class SyncNet(nn.Module):
  """Embeds five frames of lips and 0.2 s of speech, not normalised.

  Attributes:
    width: multiplies every channel count; 1 is the original.
  """

  width: float = 1.0

  def setup(self):
    """Builds the two streams, named as in the original."""
    self.netcnnlip = _Stream(_LIPS, self.width)
    self.netfclip = _Head(self.width)
    self.netcnnaud = _Stream(_SPEECH, self.width)
    self.netfcaud = _Head(self.width)

  def __call__(
    self, frames: jax.Array, mfcc: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Embeds both, see `embed_lips` and `embed_speech`."""
    return self.embed_lips(frames), self.embed_speech(mfcc)

  def embed_lips(self, frames: jax.Array) -> jax.Array:
    """Embeds windows of pictures.

    The original's first layer is a convolution over (time, height, width) that
    covers all five frames; with the frames on the channel axis it is one over
    (height, width).

    Args:
      frames: [N, 5, 224, 224, 3] float, BGR, 0 to 255.

    Returns:
      [N, D].
    """
    if frames.shape[1:] != (FRAMES, FACE_SIZE, FACE_SIZE, 3):
      raise ValueError(
        f"frames are {frames.shape}, expected "
        f"[N, {FRAMES}, {FACE_SIZE}, {FACE_SIZE}, 3]"
      )
    x = jnp.moveaxis(frames, 1, 3)  # [N, 224, 224, 5, 3]
    return self.netfclip(self.netcnnlip(x.reshape(*x.shape[:3], -1)))

  def embed_speech(self, mfcc: jax.Array) -> jax.Array:
    """Embeds windows of MFCCs: [N, 20, 13] to [N, D]."""
    x = jnp.swapaxes(mfcc, 1, 2)[..., None]  # [N, 13, 20, 1]
    return self.netfcaud(self.netcnnaud(x))
