"""What lip-syncing takes: pictures of a face, and speech; from files or arrays.

Frames and sound come one after the other, so that memory does not grow with
their length.  Boxes and networks are elsewhere.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from fractions import Fraction

import cv2
import numpy as np

from w2l_jax import audio, video

PHOTO_FPS = 25
# Frames held while a video is played backwards: so many bytes of them.
_BACKWARDS_BYTES = 2**27
# Below the last bit of 16 there is no sound.
_SILENT = 2**-15
# The mel of shorter sound is computed with silence after it.
_SHORTEST_SECONDS = 0.2
# More are samples.
_MOST_CHANNELS = 64
# Silence of less is a pause between sounds.
_PAUSE_COLUMNS = 24
# BT.709 in 16 to 235, what players expect of a file without a source.
_PHOTO_COLOUR = video.Colour(space=1, range=1, primaries=1, transfer=1)


class InferenceError(ValueError):
  """The inputs cannot be lip-synced; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Edit:
  """What is done to every frame first, in this order, as in the original.

  Attributes:
    resize_factor: sides are divided by it.
    rotate: whether to turn by 90 degrees clockwise.
    crop: top, bottom, left, right, of which a bottom or right of -1 is the
      frame's.
  """

  resize_factor: int = 1
  rotate: bool = False
  crop: tuple[int, int, int, int] = (0, -1, 0, -1)

  def __call__(self, frame: np.ndarray) -> np.ndarray:
    """Edits a frame, [H, W, 3] to [H', W', 3]."""
    if self.resize_factor > 1:
      size = tuple(
        max(1, side // self.resize_factor) for side in frame.shape[1::-1]
      )
      frame = cv2.resize(frame, size)
    if self.rotate:
      frame = cv2.rotate(frame, cv2.ROTATE_90_CLOCKWISE)
    top, bottom, left, right = self.crop
    height, width = frame.shape[:2]
    bottom = height if bottom == -1 else bottom
    right = width if right == -1 else right
    part = frame[top:bottom, left:right]
    if not part.size:
      raise InferenceError(
        f"crop {self.crop} leaves nothing of a frame of {width} x {height}; "
        "it is top, bottom, left, right"
      )
    return np.ascontiguousarray(part)


@dataclasses.dataclass(frozen=True)
class Pictures:
  """A face's video or photo.

  Attributes:
    name: of the file, for messages.
    fps: frames a second.
    frames: iterates over the frames, BGR uint8, from the one of that number on.
    still: whether there is one frame only, for any length of time.
    colour: of the source.
  """

  name: str
  fps: Fraction
  frames: Callable[[int], Iterator[np.ndarray]]
  still: bool
  colour: video.Colour


def open_pictures(
  face: str | np.ndarray,
  fps: float | None = None,
  static: bool = False,
  edit: Edit = Edit(),  # noqa: B008 (frozen)
) -> Pictures:
  """Opens a video, a photo or arrays.

  Args:
    face: a file, or BGR uint8: [T, H, W, 3] or one picture [H, W, 3].
    fps: to convert a video to, and of photos and arrays (None: 25).
    static: whether to take the first frame only.
    edit: what is done to every frame.

  Raises:
    InferenceError, MediaError: if it is none of them.
  """
  rate = Fraction(fps or PHOTO_FPS).limit_denominator(1001 * 100)
  colour = _PHOTO_COLOUR
  if isinstance(face, np.ndarray):
    name, array = "the face", face[None] if face.ndim == 3 else face
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
      raise InferenceError(
        f"the face is {face.dtype} {face.shape}, expected BGR uint8 "
        "[frames, height, width, 3] or [height, width, 3]"
      )
    if not array.size:
      raise InferenceError(f"the face has no pictures: {face.shape}")
  else:
    name = os.fspath(face)
    photo = video.read_image(name)
    array = None if photo is None else photo[None]
    if array is None:
      own = video.frame_rate(name)
      rate, colour = rate if fps else own, video.colour(name)
  still = static or (array is not None and len(array) == 1)

  def frames(first=0):
    if array is not None:
      return iter(array[first:])
    return video.frames_at_rate(name, float(rate), first)

  if still:
    first_frame = edit(next(frames()))
    return Pictures(name, rate, lambda _: iter([first_frame]), True, colour)
  return Pictures(
    name, rate, lambda first: map(edit, frames(first)), False, colour
  )


def looped(
  pictures: Pictures, count: int, loop: str
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (number of the source frame, frame).

  Args:
    pictures: the source.
    count: how many frames it has.
    loop: what follows its end: "restart": the first frame again, "ping_pong":
      backwards, without the two turning points, and forwards again, "freeze":
      its last frame, "stop": nothing.
  """
  if pictures.still:
    frame = next(pictures.frames(0))
    yield from itertools.repeat((0, frame))
  while True:
    last = None
    for last in enumerate(pictures.frames(0)):  # noqa: B007
      yield last
    if loop == "stop":
      return
    if loop == "freeze":
      yield from itertools.repeat(last)
    if loop == "ping_pong":
      # Part by part, each decoded from a key frame before it.
      part = int(np.clip(_BACKWARDS_BYTES // last[1].nbytes, 1, 64))
      for stop in range(count - 1, 1, -part):
        start = max(1, stop - part)
        frames = itertools.islice(pictures.frames(start), stop - start)
        yield from reversed(list(enumerate(frames, start)))


@dataclasses.dataclass(frozen=True)
class Speech:
  """Sound to be said.

  Attributes:
    name: of the file, for messages.
    mel: [T_mel, 80] float32; 26 kB a second, all that is kept of the sound.
    seconds: its length.
    sample_rate: Hz.
    blocks: iterates over the samples, [n, channels] float32; a file's are
      stereo or mono.
    silent: whether there is no sound at all.
  """

  name: str
  mel: np.ndarray
  seconds: float
  sample_rate: int
  blocks: Callable[[], Iterator[np.ndarray]]
  silent: bool


def open_speech(speech: str | tuple[np.ndarray, int], padding: str) -> Speech:
  """Reads sound once, for its mel and its length.

  Args:
    speech: any file with sound, or (waveform, sample rate in Hz): floats in
      [-1, 1] or integers, [samples] or [samples, channels].
    padding: of audio.log_mel.

  Raises:
    InferenceError, MediaError: if it is no sound.
  """
  if isinstance(speech, tuple):
    name, (waveform, rate) = "the speech", speech
    waveform = audio.as_floats(waveform)
    waveform = waveform if waveform.ndim == 2 else waveform.reshape(-1, 1)
    if waveform.shape[1] > _MOST_CHANNELS:
      raise InferenceError(
        f"{name} is {waveform.shape}, which is {waveform.shape[1]} channels; "
        "expected [samples] or [samples, channels]: is it transposed?"
      )
  else:
    name, waveform = os.fspath(speech), None
    rate = video.audio_format(name)[0]

  def blocks():
    if waveform is None:
      return video.audio_blocks(name, stereo=True)
    return (waveform[i : i + rate] for i in range(0, len(waveform), rate))

  samples, peak = 0, 0.0

  def measured():
    nonlocal samples, peak
    for block in blocks():
      samples += len(block)
      peak = max(peak, float(np.abs(block).max(initial=0)))
      yield block
    missing = round(_SHORTEST_SECONDS * rate) - samples
    if samples and missing > 0:
      yield np.zeros((missing, block.shape[1]), np.float32)

  try:
    mel = np.concatenate(
      list(audio.log_mel_blocks(audio.resampled(measured(), rate), padding))
    )
  except video.MediaError:
    raise
  except ValueError as e:
    raise InferenceError(f"{name}: {e}") from e
  return Speech(name, mel, samples / rate, rate, blocks, peak <= _SILENT)


def quiet_columns(mel: np.ndarray, threshold: float) -> np.ndarray:
  """Where a spectrogram has no speech for 0.3 s or more.

  Args:
    mel: [T_mel, 80].
    threshold: speech has a mean mel above it in the 0.2 s around.

  Returns:
    [T_mel] bool.
  """
  level = mel.mean(axis=1)
  loud = cv2.blur(level[None], (17, 1), borderType=cv2.BORDER_REPLICATE)[0]
  edges = np.flatnonzero(
    np.diff(np.concatenate([[True], loud > threshold, [True]]).astype(np.int8))
  )
  quiet = np.zeros(len(mel), bool)
  for start, stop in edges.reshape(-1, 2):
    if stop - start >= _PAUSE_COLUMNS:
      quiet[start:stop] = True
  return quiet
