"""Figures of pictures, all but jitter jittable; SSIM is dm-pix's."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np


def l1(fake: jax.Array, real: jax.Array) -> jax.Array:
  """Mean absolute difference of each picture: [N, H, W, C] twice to [N]."""
  return jnp.mean(jnp.abs(fake - real), axis=(-3, -2, -1))


def psnr(fake: jax.Array, real: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio of each picture in [0, 1], dB, at most 100.

  [N, H, W, C] twice to [N].
  """
  mse = jnp.mean((fake - real) ** 2, axis=(-3, -2, -1))
  return -10.0 * jnp.log10(jnp.maximum(mse, 1e-10))


def ssim(fake: jax.Array, real: jax.Array) -> jax.Array:
  """Structural similarity of each picture in [0, 1].

  The variant of Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, biased
  covariances, k1 0.01, k2 0.03, valid windows only, mean over channels.

  [N, H, W, C] twice to [N].
  """
  return dm_pix.ssim(fake, real)


def jitter(frames: np.ndarray) -> float:
  """How much a clip trembles: mean |x[t-1] - 2 x[t] + x[t+1]|.

  Even motion leaves nothing of it; noise of each frame its own leaves most.
  There is no accepted measure; read it beside that of the real clip.  NumPy:
  clips differ in length, and each would be compiled.

  Args:
    frames: [T, H, W, C] in [0, 1], T >= 3.
  """
  return float(np.mean(np.abs(frames[:-2] - 2 * frames[1:-1] + frames[2:])))
