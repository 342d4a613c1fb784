"""Wav2Lip in JAX/Flax.

Letters of array shapes, the same everywhere:

  B  windows in a batch              T  consecutive frames in a window (5)
  N  frames in a batch (B * T)       S  side of a square face crop (96)
  M  mel columns in a window (16)    F  mel bands (80)
  H, W, C  height, width, channels   D  embedding size (512 * width)

Pictures are NHWC and **BGR** (Wav2Lip reads with OpenCV, and released weights
expect its order): uint8 at the edges (records, batches, video), float32 in
[0, 1] inside networks and losses.  Batches and time fold batch-major:
[B, T, ...] <-> [B * T, ...].

What Wav2Lip's code calls these things:

  here          there
  frames        y: the target window, unmasked
  reference     x[3:]: another window of the same video
  masked        x[:3]: target with its lower half zeroed (pose prior)
  mel           mel: the window's 16 columns, for the sync loss
  frame_mels    indiv_mels: 16 columns for every frame, for the generator
  in_sync       y of stage 1: 1 where speech and faces belong together
"""

from w2l_jax.version import __version__

__all__ = ["LipSyncer", "__version__"]


def __getattr__(name: str):
  """Imports the API when it is asked for: training needs none of it."""
  if name == "LipSyncer":
    from w2l_jax.lip_syncer import LipSyncer

    return LipSyncer
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
