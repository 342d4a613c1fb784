"""What there is to try before one has anything: a network, a face and speech.

All of it comes with the package: a network that knows one man, his face, which
it has drawn, and a synthetic voice.
"""

import dataclasses
import os

import cv2
import numpy as np

from w2l_jax import released, video, video_writer, windows

# What is taken where no network is named.
CHECKPOINT = "grid-small"
FACE = os.path.join(released.folder(CHECKPOINT), "face.mp4")
SPEECH = os.path.join(released.folder(CHECKPOINT), "speech.flac")


@dataclasses.dataclass(frozen=True)
class Example:
  """A face and speech to try: what it shows, and two files."""

  label: str
  face: str
  speech: str


def examples(folder: str) -> list[Example]:
  """Makes a photo and a video of two faces beside the video that there is.

  Args:
    folder: for what is made; it exists.
  """
  photo, two = (
    os.path.join(folder, name) for name in ("photo.png", "two_faces.mp4")
  )
  frames = list(video.frames_at_rate(FACE, windows.FPS))
  cv2.imwrite(photo, frames[0])
  with video_writer.VideoWriter(two, windows.FPS) as writer:
    for frame in frames:
      writer.write(np.concatenate([frame, frame[:, ::-1]], axis=1))
  return [
    Example("A video says another sentence", FACE, SPEECH),
    Example("A photo speaks", photo, SPEECH),
    Example("Two faces: choose which one speaks", two, SPEECH),
  ]
