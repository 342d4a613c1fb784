"""What there is to try before one has anything: faces, speech, and a network.

Nobody's face and nobody's voice: all of it is rendered.
"""

import dataclasses
import os

import cv2
import numpy as np
import soundfile
from absl import logging

from data_prep import rendered_corpus
from w2l_jax import video, video_writer, windows

_CLIPS = rendered_corpus.CorpusSpec(identities=(0, 0, 3), clips=1)


def clips(folder: str = "runs/sample") -> list[str]:
  """Renders three talking faces, once; needs the extra "demo".

  They are of the demo's test split, which no network of its was trained on.

  Args:
    folder: where they are kept.

  Returns:
    Paths of three videos with sound.

  Raises:
    SynthesisError: if the speech synthesiser is missing.
  """
  found = rendered_corpus.render(_CLIPS, folder, os.cpu_count() or 1)
  return [os.path.join(folder, "videos", f"{c.name}.mp4") for c in found]


def checkpoint(workdir: str = "runs/demo", size: str = "small") -> str:
  """Names the generator that is taken where none is named: the demo's.

  This function alone decides.  Where the demo has not run, it is run: 6 to 14
  minutes on two CPU cores.

  Args:
    workdir: of the demo.
    size: "small", or "tiny", which has learnt nothing and is there in a minute.

  Returns:
    What LipSyncer.from_checkpoint takes.
  """
  # Its flags are not for everybody who imports this.
  from launch import demo

  if not os.path.exists(os.path.join(workdir, "summary.json")):
    logging.set_verbosity(logging.ERROR)  # Orbax and TFDS tell every step.
    demo.run(workdir, seed=0, size=size, workers=os.cpu_count() or 1)
  return os.path.join(workdir, "generator")


@dataclasses.dataclass(frozen=True)
class Example:
  """A face and speech to try: what it shows, and two files."""

  label: str
  face: str
  speech: str


def examples(folder: str = "runs/sample") -> list[Example]:
  """Makes a video, a photo and a video of two people, each with speech.

  Args, raises: as `clips`.
  """
  first, second, third = clips(folder)
  files = {
    name: os.path.join(folder, name)
    for name in ("photo.png", "two_people.mp4", "speech.wav")
  }
  frames = [
    list(video.frames_at_rate(path, windows.FPS))
    for path in (first, second, third)
  ]
  cv2.imwrite(files["photo.png"], frames[1][0])
  with video_writer.VideoWriter(files["two_people.mp4"], windows.FPS) as writer:
    for left, right in zip(*frames[1:], strict=False):
      writer.write(np.concatenate([left, right], axis=1))
  waveform, rate = video.read_audio(third)
  soundfile.write(files["speech.wav"], waveform, rate)
  return [
    Example("A video says another sentence", first, files["speech.wav"]),
    Example("A photo speaks", files["photo.png"], first),
    Example("Two people: choose who speaks", files["two_people.mp4"], first),
  ]
