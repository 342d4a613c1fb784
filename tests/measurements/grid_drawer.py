"""What a generator draws of GRID's test clips, and what is said in them."""

import os

import numpy as np

from w2l_jax import dataset, inference, windows

# GRID's label files count 1/25000 s.
_UNITS_A_FRAME = 25_000 / windows.FPS


class Drawer:
  """A generator, beside a prepared test split."""

  def __init__(self, data: str, checkpoint: str = "grid-small"):
    self._variables, self._config = inference.load_generator(checkpoint)
    self._generator = inference.FaceGenerator(self._config)
    directory = dataset.builder_dir(data, self._config["image_size"])
    self.split = dataset.Split(directory, "test")

  def frames(self, face: int, speech: int) -> np.ndarray:
    """Clip `face` saying what `speech` does, [T, S, S, 3]."""
    crops = dataset.decode_frames(self.split[face])
    said = self.split[speech]
    total = len(dataset.decode_frames(said))
    return inference.lipsync_crops(
      self._generator, self._variables, self._config, crops, said["mel"], total
    )[1]

  def said(self, speech: int, align: str) -> list[tuple[str, float, float]]:
    """(word, first frame, last) of a clip, by the corpus's labels."""
    name = dataset.text(self.split.index.ids[speech]).split("/")[-1]
    with open(os.path.join(align, f"{name}.align")) as f:
      return [
        (word, float(start) / _UNITS_A_FRAME, float(end) / _UNITS_A_FRAME)
        for start, end, word in map(str.split, f)
        if word not in ("sil", "sp")
      ]
