r"""Makes a small moving picture of videos side by side, as READMEs show them.

  python -m launch.animate --videos=runs/demo/input.mp4,runs/demo/lipsync.mp4 \
    --animation=lipsync.webp

It loops and is silent.
"""

import itertools
import os
import sys

import cv2
import numpy as np
from absl import app, flags

from w2l_jax import video

_VIDEOS = flags.DEFINE_list("videos", None, "Videos.", required=True)
_ANIMATION = flags.DEFINE_string(
  "animation", None, "Picture to write: .webp or .gif.", required=True
)
_HEIGHT = flags.DEFINE_integer("height", 160, "In pixels.", lower_bound=16)
_FPS = flags.DEFINE_float("fps", 12.5, "Frames a second.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4.0, "At most.", lower_bound=0.1)
_QUALITY = flags.DEFINE_integer(
  "quality", 60, "Of a .webp.", lower_bound=1, upper_bound=100
)


def animate(
  videos: list[str],
  outfile: str,
  height: int = 160,
  fps: float = 12.5,
  seconds: float = 4.0,
  quality: int = 60,
) -> int:
  """Writes the picture; it has this name only when complete.

  Args:
    videos: paths; the shortest one ends it.
    outfile: a .webp or .gif.
    height: of every video in it, pixels.
    fps: frames a second.
    seconds: at most.
    quality: of a .webp, 1 to 100.

  Returns:
    The number of frames.

  Raises:
    ValueError: on another suffix, or where OpenCV is too old.
    MediaError: naming a file that is no video.
  """
  if not outfile.endswith((".webp", ".gif")):
    raise ValueError(f"{outfile}: expected .webp or .gif")
  if not hasattr(cv2, "imwriteanimation"):
    raise ValueError(f"OpenCV {cv2.__version__} cannot; 4.11 or newer can")
  frames = []
  sources = [video.frames_at_rate(path, fps) for path in videos]
  for row in itertools.islice(
    zip(*sources, strict=False), round(seconds * fps)
  ):
    sized = [
      cv2.resize(
        f,
        (round(f.shape[1] * height / f.shape[0]), height),
        interpolation=cv2.INTER_AREA,
      )
      for f in row
    ]
    frames.append(np.concatenate(sized, axis=1))
  animation = cv2.Animation()
  animation.frames = frames
  animation.durations = [round(1000 / fps)] * len(frames)
  folder, name = os.path.split(outfile)
  partial = os.path.join(folder, f".partial.{name}")
  # What a .gif does with quality is nothing.
  options = [cv2.IMWRITE_WEBP_QUALITY, quality]
  if not cv2.imwriteanimation(
    partial, animation, options if outfile.endswith(".webp") else []
  ):
    raise ValueError(f"{outfile}: cannot be written")
  os.replace(partial, outfile)
  return len(frames)


def main(argv):
  """Makes it."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  try:
    frames = animate(
      _VIDEOS.value,
      _ANIMATION.value,
      _HEIGHT.value,
      _FPS.value,
      _SECONDS.value,
      _QUALITY.value,
    )
  except (ValueError, OSError) as e:
    sys.exit(f"error: {e}")
  size = os.path.getsize(_ANIMATION.value)
  print(f"{_ANIMATION.value}: {frames} frames, {size / 1000:.0f} kB")


if __name__ == "__main__":
  app.run(main)
