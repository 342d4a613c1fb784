"""What stage 2 shows of itself while it trains: a grid and a talking clip."""

import os
from collections.abc import Callable

import numpy as np
from absl import logging

from w2l_jax import (
  audio,
  dataset,
  inference,
  metrics,
  video,
  video_writer,
  windows,
)

_FOLDER = "samples"


def render_clip(
  path: str,
  split: dataset.Split,
  face_record: int,
  speech_record: int,
  generator: inference.FaceGenerator,
  variables,
  config,
) -> None:
  """Writes a clip of one record's face saying another record's speech.

  Left the input, right the result, with the speech as sound.
  """
  face, speech = split[face_record], split[speech_record]
  crops = dataset.decode_frames(face)
  waveform = dataset.decode_audio(speech)
  total = round(len(waveform) / audio.SAMPLE_RATE * windows.FPS)
  crops, fakes = inference.lipsync_crops(
    generator, variables, config, crops, speech["mel"], total
  )
  with video_writer.VideoWriter(path, windows.FPS, waveform) as writer:
    for crop, fake in zip(crops, fakes, strict=True):
      # Twice the size, so that players show more than a stamp.
      writer.write(
        np.concatenate([crop, fake], axis=1).repeat(2, 0).repeat(2, 1)
      )


def write(step: int, workdir: str, writer, grid, render: Callable) -> None:
  """Writes the sample grid and a lip-synced validation clip of one step.

  A full disk or a codec's failure is told and costs the picture, not the run.

  Args:
    step: names the files.
    workdir: of the run.
    writer: of its figures.
    grid: picture of the samples.
    render: writes the clip to the path that it is given.
  """
  folder = os.path.join(workdir, _FOLDER)
  try:
    os.makedirs(folder, exist_ok=True)
    metrics.save_image(os.path.join(folder, f"grid_{step:08d}.png"), grid)
    writer.write_image(step, "samples", grid)
    render(os.path.join(folder, f"clip_{step:08d}.mp4"))
  except (OSError, video.MediaError) as e:
    logging.warning("step %d: no samples: %s", step, e)
