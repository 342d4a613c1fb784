"""Clips beside each other in one video with sound, to be looked at."""

from collections.abc import Iterable

import cv2
import numpy as np

from w2l_jax import audio, video, video_writer, windows

# Heights of what is shown; crops are enlarged by whole numbers at least to it.
_CROPS = 192
_VIDEOS = 288


def write_crops(
  path: str, columns: Iterable[np.ndarray], waveform: np.ndarray
) -> None:
  """Writes face crops beside each other.

  Args:
    path: of the video.
    columns: [n, S, S, 3] uint8 each, at 25 frames a second.
    waveform: [samples] at 16 kHz.
  """
  columns = list(columns)
  times = -(-_CROPS // columns[0].shape[1])
  with video_writer.VideoWriter(path, windows.FPS, waveform) as writer:
    for frames in zip(*columns, strict=True):
      picture = np.concatenate(frames, axis=1)
      writer.write(picture.repeat(times, 0).repeat(times, 1))


def write_videos(path: str, columns: Iterable[str], sound: str) -> None:
  """Writes videos beside each other, as long as the shortest.

  Args:
    path: of the video.
    columns: paths of videos.
    sound: path of what is heard.
  """
  waveform = audio.resample(*video.read_audio(sound))
  with video_writer.VideoWriter(path, windows.FPS, waveform) as writer:
    for frames in zip(
      *(video.frames_at_rate(c, windows.FPS) for c in columns), strict=False
    ):
      sized = [
        cv2.resize(f, (round(f.shape[1] * _VIDEOS / f.shape[0]), _VIDEOS))
        for f in frames
      ]
      writer.write(np.concatenate(sized, axis=1))
