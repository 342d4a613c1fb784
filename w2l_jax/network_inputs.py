"""From batches (windows of uint8 frames, mels) to what the networks take.

Pure reshaping and slicing with no parameters; the train steps, inference and
evaluation share it, so that a face means the same in all of them.
"""

import jax
import jax.numpy as jnp

CHANNEL_ORDERS = ("bgr", "rgb")


def to_float(frames: jax.Array, channel_order: str = "bgr") -> jax.Array:
  """Pictures as the networks take them; floats pass unchanged, they are such.

  Args:
    frames: uint8 [..., H, W, 3], BGR as OpenCV reads them, or float.
    channel_order: of the networks: "bgr", the original's, or "rgb".

  Returns:
    float32 in [0, 1].
  """
  if channel_order not in CHANNEL_ORDERS:
    raise ValueError(
      f"channel_order is {channel_order!r}, expected one of {CHANNEL_ORDERS}"
    )
  if frames.dtype != jnp.uint8:
    return frames
  frames = frames.astype(jnp.float32) / 255.0
  return frames[..., ::-1] if channel_order == "rgb" else frames


def to_pictures(
  frames: jax.Array, channel_order: str = "bgr", truncate: bool = False
) -> jax.Array:
  """The generator's [..., H, W, 3] in [0, 1] as uint8 BGR.

  Args:
    frames: float32.
    channel_order: of the networks.
    truncate: to whole levels, as the original does, in place of rounding.
  """
  whole = jnp.floor if truncate else jnp.rint
  frames = jnp.clip(whole(frames * 255.0), 0, 255).astype(jnp.uint8)
  return frames[..., ::-1] if channel_order == "rgb" else frames


def fold_time(x: jax.Array) -> jax.Array:
  """[B, T, ...] to [B * T, ...]."""
  return x.reshape(-1, *x.shape[2:])


def mel_image(mel: jax.Array) -> jax.Array:
  """Mel windows [N, M, F], time-major, to [N, F, M, 1]."""
  return jnp.swapaxes(mel, -1, -2)[..., None]


def lower_half(faces: jax.Array) -> jax.Array:
  """Rows H // 2 and below of [..., H, W, C]."""
  return faces[..., faces.shape[-3] // 2 :, :, :]


def mouth_region(faces: jax.Array) -> jax.Array:
  """The middle half of the columns of `lower_half`: lips and chin."""
  width = faces.shape[-2]
  return lower_half(faces)[..., width // 4 : width - width // 4, :]


def mask_lower_half(faces: jax.Array) -> jax.Array:
  """Zeroes rows H // 2 and below of [..., H, W, C]: the pose prior."""
  return jnp.asarray(faces).at[..., faces.shape[-3] // 2 :, :, :].set(0)


def expert_faces(frames: jax.Array) -> jax.Array:
  """Windows [B, T, S, S, 3] to the expert's [B, S/2, S, 3 T].

  Lower halves, frames on the channel axis, frame-major: B G R of frame 0, then
  of frame 1, ...
  """
  halves = jnp.moveaxis(lower_half(frames), 1, -2)  # [B, S/2, S, T, 3]
  return halves.reshape(*halves.shape[:3], -1)


def generator_faces(target: jax.Array, reference: jax.Array) -> jax.Array:
  """[N, S, S, 3] twice to [N, S, S, 6]: masked target, then reference."""
  return jnp.concatenate([mask_lower_half(target), reference], axis=-1)
