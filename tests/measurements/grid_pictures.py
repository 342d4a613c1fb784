"""Draws what docs/RESULTS.md shows of grid-small, and its sample face.

  python -m tests.measurements.grid_pictures --data=runs/results/data \
    --others=runs/results/others --align=GRID/align --outdir=runs/pictures

Every pixel of a face is the generator's: none of the corpus goes into the
repository.  Needs the extra "demo", for the voice.
"""

import os

import cv2
import numpy as np
import soundfile
import soxr
from absl import app, flags

from data_prep import speech_synthesis
from tests.measurements.grid_drawer import Drawer
from w2l_jax import audio, video_writer, windows

_DATA = flags.DEFINE_string("data", None, "GRID, prepared.", required=True)
_OTHERS = flags.DEFINE_string(
  "others", None, "Other people, prepared.", required=True
)
_ALIGN = flags.DEFINE_string("align", None, "GRID's align/.", required=True)
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder.", required=True)

_SENTENCE = "Place blue at F two now. Bin green by M five again."
_COMMENT = (
  "Synthetic: drawn by grid-small. After GRID speaker 1 (Cooke, Barker, "
  "Cunningham, Shao 2006), CC BY 4.0."
)


def words(drawer: Drawer, align: str) -> np.ndarray:
  """Three sentences of others' clips, each word's beginning and middle."""
  rows = []
  for speech in (0, 3, 7):
    frames = drawer.frames((speech + 11) % len(drawer.split), speech)
    marks = [("sil", 5)]
    for word, start, end in drawer.said(speech, align):
      marks += [(f"{word} 0", start), (f"{word} mid", (start + end) / 2)]
    marks.append(("sil", 70))
    tiles = []
    for label, frame in marks:
      tile = frames[min(int(frame), len(frames) - 1)]
      tile = cv2.copyMakeBorder(tile, 14, 0, 0, 0, cv2.BORDER_CONSTANT)
      tiles.append(
        cv2.putText(tile, label, (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.36,
                    (255, 255, 255))
      )  # fmt: skip
    rows.append(np.concatenate(tiles, axis=1))
  return np.concatenate(rows)


def people(drawer: Drawer) -> np.ndarray:
  """Five frames of each person, two people a row."""
  strips = [
    np.concatenate([drawer.frames(k, k)[i] for i in (5, 20, 25, 30, 35)], 1)
    for k in range(len(drawer.split))
  ]
  return np.concatenate(
    [np.concatenate(strips[i : i + 2], 1) for i in range(0, len(strips), 2)]
  )


def sample(drawer: Drawer, outdir: str) -> None:
  """Writes face.mp4 and speech.flac."""
  path = os.path.join(outdir, "face.mp4")
  comment = {"comment": _COMMENT}
  with video_writer.VideoWriter(
    path, windows.FPS, crf=20, metadata=comment
  ) as writer:
    for face in drawer.frames(0, 0):
      face = cv2.resize(face, (192, 192), interpolation=cv2.INTER_CUBIC)
      whole = cv2.copyMakeBorder(face, *(32,) * 4, cv2.BORDER_REPLICATE)
      whole = cv2.GaussianBlur(whole, (0, 0), 9)
      whole[32:-32, 32:-32] = face
      writer.write(whole)
  utterance = speech_synthesis.Utterance(_SENTENCE, rate=150, pitch=40)
  said = speech_synthesis.synthesize([utterance])[0]
  waveform = said.waveform.astype(np.float32) / 2**15
  waveform = soxr.resample(waveform, said.sample_rate, audio.SAMPLE_RATE)
  path = os.path.join(outdir, "speech.flac")
  soundfile.write(path, waveform, audio.SAMPLE_RATE)


def main(argv):
  """Writes all of it."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  outdir = _OUTDIR.value
  os.makedirs(outdir, exist_ok=True)
  drawer = Drawer(_DATA.value)
  sample(drawer, outdir)
  for name, picture in (
    ("grid_small_words", words(drawer, _ALIGN.value)),
    ("grid_small_others", people(Drawer(_OTHERS.value))),
  ):
    path = os.path.join(outdir, f"{name}.webp")
    cv2.imwrite(path, picture, [cv2.IMWRITE_WEBP_QUALITY, 80])
  print(f"written: {outdir}: {', '.join(sorted(os.listdir(outdir)))}")


if __name__ == "__main__":
  app.run(main)
