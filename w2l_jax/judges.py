"""Judges of lip-sync: one feature of the lips and one of the speech a window.

A window is five frames and the 0.2 s of sound beside them (as many as the
expert was trained with); windows follow each other by a frame.  What is read
from the features is evaluation/lse.py's and evaluation/sync_metrics.py's
matter, so that every judge is asked the same questions.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from w2l_jax import audio, metric_weights, network_inputs, train_expert, windows
from w2l_jax.evaluation import mfcc
from w2l_jax.models import syncnet

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Features:
  """What a judge makes of one clip.

  Attributes:
    lips: [n, D] float32.
    speech: [n, D] float32.
    has_speech: [n] bool, whether the window's sound is loud enough to be
      speech; silence goes with any closed mouth.
  """

  lips: np.ndarray
  speech: np.ndarray
  has_speech: np.ndarray

  def __len__(self) -> int:
    return len(self.lips)


def _batches(items: Iterable, size: int) -> Iterator[tuple[np.ndarray, int]]:
  """Stacks items to batches of one shape: (batch, how many are not filling)."""
  batch = []
  for item in items:
    batch.append(item)
    if len(batch) == size:
      yield np.stack(batch), size
      batch = []
  if batch:
    yield np.stack(batch + batch[-1:] * (size - len(batch))), len(batch)


def _embed(apply, variables, items: Iterable) -> np.ndarray:
  found = [
    np.asarray(apply(variables, batch))[:count]
    for batch, count in _batches(items, _BATCH)
  ]
  return np.concatenate(found) if found else np.zeros((0, 0), np.float32)


def _embed_lips(
  apply, variables, pictures: Iterable, size: int, frames: int
) -> tuple[np.ndarray, int]:
  """Returns (features of every window, how many pictures there were)."""
  seen = 0

  def sliding():
    nonlocal seen
    held = []
    for picture in pictures:
      seen += 1
      if picture.shape[:2] != (size, size):
        picture = cv2.resize(picture, (size, size))
      held.append(picture)
      if len(held) == frames:
        yield np.stack(held)
        held.pop(0)

  return _embed(apply, variables, sliding()), seen


def _check_length(name: str, count: int, pictures: int, seconds: float) -> None:
  if count < 1:
    raise ValueError(
      f"{pictures} frames and {seconds:.2f} s of sound make no window that "
      f"{name} can judge"
    )


class ExpertJudge:
  """An expert of our own: its scores are not SyncNet's LSE-D and LSE-C.

  Attributes:
    name: "expert".
    picture_size: side of the face crops that it takes.
  """

  name = "expert"

  def __init__(self, variables: dict, config: dict):
    """Compiles nothing yet.

    Args:
      variables: of train_expert.load_frozen.
      config: of the expert.
    """
    model = train_expert.make_model(config)
    order = config["channel_order"]
    self._variables = variables
    self._spec = config["windows"]
    self.picture_size = config["image_size"]

    @jax.jit
    def lips(variables, frames):
      faces = network_inputs.expert_faces(
        network_inputs.to_float(frames, order)
      )
      return model.apply(variables, faces, method="embed_faces")

    @jax.jit
    def speech(variables, mels):
      mel = network_inputs.mel_image(mels)
      return model.apply(variables, mel, method="embed_audio")

    self._lips, self._speech = lips, speech

  def __call__(
    self, pictures: Iterable[np.ndarray], waveform: np.ndarray, mel: np.ndarray
  ) -> Features:
    """Judges a clip.

    Args:
      pictures: BGR uint8 face crops, [S, S, 3] of any size, 25 a second.
      waveform: [samples] float32, 16 kHz.
      mel: [T_mel, F] of it.

    Raises:
      ValueError: if there is not one window.
    """
    spec = self._spec
    lips, seen = _embed_lips(
      self._lips, self._variables, pictures, self.picture_size, spec["frames"]
    )
    count = int(
      windows.num_target_starts(
        np.array(seen),
        np.array(len(mel)),
        frames=spec["frames"],
        columns=spec["mel_columns"],
      )
    )
    seconds = len(waveform) / audio.SAMPLE_RATE
    _check_length("the expert", count, seen, seconds)
    speech = _embed(
      self._speech,
      self._variables,
      (windows.mel_window(mel, v, spec["mel_columns"]) for v in range(count)),
    )
    return Features(
      lips[:count],
      speech,
      has_speech(mel, count, spec["speech_threshold"], spec["mel_columns"]),
    )


class SyncNetJudge:
  """SyncNet with published weights: LSE-D and LSE-C proper.

  Attributes:
    name: "syncnet".
    picture_size: side of the pictures that it takes.
  """

  name = "syncnet"
  picture_size = syncnet.FACE_SIZE

  def __init__(
    self,
    variables: dict,
    speech_threshold: float,
    faithful: bool = False,
    width: float = 1.0,
  ):
    """Compiles nothing yet.

    Args:
      variables: of metric_weights.load_syncnet.
      speech_threshold: as in window_sampler.WindowSpec.
      faithful: one window fewer than there are, as in syncnet_python.
      width: of the network.
    """
    model = syncnet.SyncNet(width)
    self._variables = variables
    self._threshold = speech_threshold
    self._faithful = faithful

    @jax.jit
    def lips(variables, frames):
      frames = frames.astype(jnp.float32)
      return model.apply(variables, frames, method="embed_lips")

    @jax.jit
    def speech(variables, columns):
      return model.apply(variables, columns, method="embed_speech")

    self._lips, self._speech = lips, speech

  @classmethod
  def load(cls, path: str, speech_threshold: float, faithful: bool = False):
    """Returns the judge of a file of weights; errors as load_syncnet."""
    variables = metric_weights.load_syncnet(path)
    return cls(variables, speech_threshold, faithful)

  def num_windows(self, pictures: int, samples: int) -> int:
    """How many windows a clip has.

    The original counts n = min(pictures, samples // 640) and takes windows
    0, ..., n - 6; here all that have five pictures and twenty columns of MFCC
    count.
    """
    if self._faithful:
      per_frame = audio.SAMPLE_RATE // windows.FPS
      return max(0, min(pictures, samples // per_frame) - syncnet.FRAMES)
    columns = mfcc.num_columns(samples) - syncnet.MFCC_COLUMNS
    return max(0, min(pictures - syncnet.FRAMES, columns // 4) + 1)

  def __call__(
    self, pictures: Iterable[np.ndarray], waveform: np.ndarray, mel: np.ndarray
  ) -> Features:
    """Judges a clip; arguments and errors as ExpertJudge's.

    The pictures are of any size and are resized to 224x224: tracked faces with
    their surroundings (faces.syncnet_crop) or whole frames, as published
    figures were taken from; from tight crops the scores are not comparable
    with those.
    """
    lips, seen = _embed_lips(
      self._lips,
      self._variables,
      pictures,
      self.picture_size,
      syncnet.FRAMES,
    )
    count = min(len(lips), self.num_windows(seen, len(waveform)))
    seconds = len(waveform) / audio.SAMPLE_RATE
    _check_length("SyncNet", count, seen, seconds)
    columns = mfcc.mfcc(waveform)
    # 100 columns a second, 25 frames: window v begins with column 4 v.
    speech = _embed(
      self._speech,
      self._variables,
      (columns[4 * v : 4 * v + syncnet.MFCC_COLUMNS] for v in range(count)),
    )
    return Features(
      lips[:count], speech, has_speech(mel, count, self._threshold, 16)
    )


Judge = ExpertJudge | SyncNetJudge


def has_speech(
  mel: np.ndarray, count: int, threshold: float, columns: int
) -> np.ndarray:
  """Tells which of the windows at frames 0, ..., count - 1 have speech.

  A window past the mel's end is judged by what there is of it.

  Args:
    mel: [T_mel, F].
    count: how many windows.
    threshold: of the window's mean mel.
    columns: of a window.

  Returns:
    [count] bool.
  """
  means = mel.mean(axis=1)
  short = windows.mel_start(max(0, count - 1)) + columns - len(means)
  means = np.pad(means, (0, max(0, short)), constant_values=audio.SILENCE)
  return windows.window_means(means, count, columns) > threshold
