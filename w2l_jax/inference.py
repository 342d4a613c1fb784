"""From a face video or photo and speech to a lip-synced video.

The generator's variables come from checkpoints.py, boxes and pasting from
faces.py, files from video.py; this module is the order of things.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from w2l_jax import (
  audio,
  checkpoints,
  detectors,
  faces,
  network_inputs,
  video,
  windows,
)
from w2l_jax.models import Generator

# Five frames of speech: less cannot fill one mel window.
SHORTEST_AUDIO_SECONDS = 0.2
PHOTO_FPS = 25
# Below the last bit of 16 there is no sound.
_SILENT = 2**-15


# Frames held while a video is played backwards.
_BACKWARDS = 64
CHOICES = {
  "ending": ("padded", "original"),
  "loop": ("restart", "ping_pong"),
  "no_face": ("pass", "hold", "error"),
  "paste": ("feathered", "hard"),
  "reference": ("own", "first"),
}


class InferenceError(ValueError):
  """The inputs cannot be lip-synced; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Options:
  """How a video is made; config.inference holds the defaults.

  Attributes:
    ending: "padded": a frame for all of the speech, silence after its end;
      "original": frames whose mel window is whole, and one more.
    loop: where the speech is longer than the video: "restart", the original's,
      or "ping_pong", forwards and backwards.
    no_face: frames without a face: "pass" unchanged, "hold" the last face's
      box, or "error", the original's.
    paste: "feathered" or "hard", the original's.
    reference: whose looks a frame's face takes: its "own", the original's, or
      those of the "first" face for all, so that the mouths of the video, which
      move, cannot show through.
  """

  ending: str = "padded"
  loop: str = "restart"
  no_face: str = "pass"
  paste: str = "feathered"
  reference: str = "own"

  def __post_init__(self):
    """Refuses unknown words."""
    for name, words in CHOICES.items():
      if getattr(self, name) not in words:
        raise InferenceError(
          f"{name} is {getattr(self, name)!r}, expected one of {words}"
        )


def make_model(
  config, dtype: jnp.dtype | None = None, remat: bool = False
) -> Generator:
  """Returns the generator that a config, or a checkpoint's, describes.

  Args:
    config: of stage 2.
    dtype: of the computation; None: float32, also where it was trained in
      bfloat16.
    remat: see Generator.
  """
  return Generator(
    width=config["width"],
    image_size=config["image_size"],
    speech_encoder_frozen=config.get("speech_encoder_frozen", False),
    dtype=dtype,
    remat=remat,
  )


def model_inputs(config) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Returns shapes of (mel, faces) for one frame."""
  size, spec = config["image_size"], config["windows"]
  return (
    jax.ShapeDtypeStruct((1, 80, spec["mel_columns"], 1), jnp.float32),
    jax.ShapeDtypeStruct((1, size, size, 6), jnp.float32),
  )


def frame_mels(
  mel: np.ndarray, num_frames: int, fps: float, columns: int, offset: int
) -> np.ndarray:
  """Returns the mel window of every frame of a video.

  Frame f's window begins with frame f + offset; what lies before the speech or
  after it is silence, so there is a window for every frame (the original drops
  the frames whose windows are not whole).

  Args:
    mel: [T_mel, F].
    num_frames: n.
    fps: of the video.
    columns: M.
    offset: in frames of 1/25 s, as in training.

  Returns:
    [n, M, F].
  """
  # In this video's frames the offset is offset * fps / 25.
  starts = windows.mel_start(
    np.arange(num_frames) + offset * fps / windows.FPS, fps
  )
  lead = max(0, -int(starts[0]))
  starts = starts + lead
  length = max(int(starts[-1]) + columns, lead + len(mel))
  padded = np.full((length, mel.shape[1]), audio.SILENCE, np.float32)
  padded[lead : lead + len(mel)] = mel
  return padded[starts[:, None] + np.arange(columns)]


def original_frame_count(
  num_columns: int, fps: float, columns: int, offset: int
) -> int:
  """How many frames the original writes for a mel of `num_columns` columns.

  Those whose window is whole, and one that takes the last window
  (inference.py).  Other arguments as in `frame_mels`.
  """
  most = int(np.ceil(num_columns * fps / windows.MEL_COLUMNS_PER_SECOND)) + 1
  starts = windows.mel_start(np.arange(most) + offset * fps / windows.FPS, fps)
  return int(np.argmax(starts + columns > num_columns)) + 1


class FaceGenerator:
  """A generator with its variables: faces and mels in, faces out."""

  def __init__(self, config, batch_size: int = 16):
    """Compiles nothing yet; one batch shape is compiled at first use.

    Args:
      config: of the generator, or a checkpoint's.
      batch_size: frames at a time.
    """
    self._batch_size = batch_size
    model, order = make_model(config), config["channel_order"]

    @jax.jit
    def generate(variables, mels, frames, references):
      frames, references = (
        network_inputs.to_float(x, order) for x in (frames, references)
      )
      fake = model.apply(
        variables,
        network_inputs.mel_image(mels),
        network_inputs.generator_faces(frames, references),
      )
      return network_inputs.to_pictures(fake, order)

    self._generate = generate

  def __call__(
    self,
    variables: dict,
    frames: np.ndarray,
    mels: np.ndarray,
    reference: np.ndarray | None = None,
  ) -> np.ndarray:
    """Generates faces that say the speech.

    Each frame is its own pose prior.

    Args:
      variables: of the generator.
      frames: [n, S, S, 3] uint8 face crops.
      mels: [n, M, F], the mel window of each frame.
      reference: [S, S, 3], the reference for all; None: each frame is its own,
        as in the original.

    Returns:
      [n, S, S, 3] uint8.
    """
    out = []
    references = frames
    if reference is not None:
      references = np.broadcast_to(reference, frames.shape)
    for start in range(0, len(frames), self._batch_size):
      part = slice(start, start + self._batch_size)
      count = len(frames[part])
      fill = self._batch_size - count
      pad = [(0, fill)] + [(0, 0)] * (frames.ndim - 1)
      pad_mel = [(0, fill)] + [(0, 0)] * (mels.ndim - 1)
      generated = self._generate(
        variables,
        np.pad(mels[part], pad_mel),
        np.pad(frames[part], pad),
        np.pad(references[part], pad),
      )
      out.append(np.asarray(generated)[:count])
    return np.concatenate(out)


def lipsync_crops(
  generator: FaceGenerator,
  variables: dict,
  config,
  crops: np.ndarray,
  mel: np.ndarray,
  num_frames: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Makes a prepared clip's face say a prepared clip's speech, at 25 fps.

  Args:
    generator: of `config`.
    variables: its.
    config: of stage 2, or a checkpoint's.
    crops: [n, S, S, 3] uint8; from the first again where they are too few.
    mel: [T_mel, F] of the speech.
    num_frames: to make.

  Returns:
    (the crops taken, the generated ones), both [num_frames, S, S, 3] uint8.
  """
  spec = config["windows"]
  mels = frame_mels(
    mel,
    num_frames,
    windows.FPS,
    spec["mel_columns"],
    spec["inference_mel_offset"],
  )
  first = config["inference"]["reference"] == "first"
  taken = crops[np.arange(num_frames) % len(crops)]
  return taken, generator(variables, taken, mels, crops[0] if first else None)


def load_generator(path: str, ema: bool = False) -> tuple[dict, dict]:
  """Reads a trained generator.

  Args:
    path: a workdir or step folder of stage 2.
    ema: whether to take the moving average of its params.

  Returns:
    (variables, the config that it was trained with).

  Raises:
    CheckpointError: if it is none.
  """
  config = checkpoints.load_config(path, "generator")
  abstract = jax.eval_shape(
    make_model(config).init, jax.random.key(0), *model_inputs(config)
  )
  variables = checkpoints.load_variables(path, "generator", abstract, ema)
  return variables, config


@dataclasses.dataclass
class Summary:
  """What lipsync did.

  Attributes:
    frames: written.
    with_face: of them, how many have a new face; the others are unchanged.
    seconds: length of the video.
    silent: whether the speech has no sound at all.
  """

  frames: int
  with_face: int
  seconds: float
  silent: bool = False


def _photo_or_video(face: str):
  """Returns (fps, a function that iterates over the frames)."""
  photo = video.read_image(face)
  if photo is not None:
    return Fraction(PHOTO_FPS), lambda: iter([photo])
  fps = video.frame_rate(face)
  return fps, lambda: video.frames_at_rate(face, float(fps))


def _looped(frames, count: int, loop: str) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (source index, frame) without end.

  Args:
    frames: a function that iterates over the frames.
    count: how many there are.
    loop: as in Options.
  """
  while True:
    yield from enumerate(frames())
    if loop == "ping_pong":
      # Backwards, without the two turning points; decoded again for each part,
      # so that memory does not grow with the video.
      for end in range(count - 1, 1, -_BACKWARDS):
        start = max(1, end - _BACKWARDS)
        part = list(itertools.islice(enumerate(frames()), start, end))
        yield from reversed(part)


def lipsync(
  checkpoint: str,
  face: str,
  speech: str,
  outfile: str,
  *,
  pads: tuple[int, int, int, int] = (0, 0, 0, 0),
  detector: str | None = None,
  batch_size: int = 16,
  ema: bool = False,
  **choices: str,
) -> Summary:
  """Makes the face in a video or photo say the speech.

  The output is as long as the speech; a shorter video is repeated, a longer
  one cut.  Memory does not grow with the video: it is decoded once for the
  boxes and once more for the faces.

  Args:
    checkpoint: a workdir or step folder of stage 2.
    face: a video or a photo.
    speech: any file with sound.
    outfile: an .mp4, .mkv or .mov; has this name only when complete.
    pads: pixels to add to the box: top, bottom, left, right.
    detector: a name of detectors.DETECTORS; None is the checkpoint's own.
    batch_size: frames generated at a time.
    ema: whether to use the moving average of the generator's params.
    **choices: of Options, in place of the checkpoint's.

  Returns:
    A summary.

  Raises:
    CheckpointError, MediaError, InferenceError: naming the file.
  """
  variables, config = load_generator(checkpoint, ema)
  options = Options(**{**config.get("inference", {}), **choices})
  preparation = config["preparation"]
  tracking = faces.Tracking(**preparation["tracking"])
  waveform, sample_rate = video.read_audio(speech)
  seconds = len(waveform) / sample_rate
  if seconds < SHORTEST_AUDIO_SECONDS:
    raise InferenceError(
      f"{speech}: has {seconds:.3f} s of sound, expected at least "
      f"{SHORTEST_AUDIO_SECONDS} s"
    )
  fps, frames = _photo_or_video(face)
  total = max(1, round(seconds * fps))

  boxes = faces.track_face(
    tqdm.tqdm(frames(), desc="finding faces", unit="frame"),
    detectors.make(detector or preparation["detector"]),
    tracking,
  )
  if not np.isfinite(boxes).any():
    raise InferenceError(
      f"{face}: no face found in {len(boxes)} frames; expected one that looks "
      "towards the camera; another --detector may find it"
    )
  missing = np.flatnonzero(~np.isfinite(boxes[:, 0]))
  if options.no_face == "error" and len(missing):
    raise InferenceError(
      f"{face}: no face found in {len(missing)} of {len(boxes)} frames, the "
      f"first at {missing[0] / float(fps):.2f} s; cut them out, or let them "
      "pass with no_face=pass"
    )
  boxes = faces.smooth_boxes(boxes, tracking.smooth_frames)
  if options.no_face == "hold":
    boxes = faces.hold_boxes(boxes)
  boxes = faces.pad_boxes(boxes, pads)

  mel = audio.log_mel(waveform, sample_rate, preparation["audio_padding"])
  spec = config["windows"]
  timing = float(fps), spec["mel_columns"], spec["inference_mel_offset"]
  if options.ending == "original":
    total = original_frame_count(len(mel), *timing)
  mels = frame_mels(mel, total, *timing)
  if options.ending == "original":
    mels[-1] = mel[-spec["mel_columns"] :]
  generator = FaceGenerator(config, batch_size)
  size = config["image_size"]
  with_face, reference = 0, None

  def finish(batch, writer):
    """Generates a batch's faces and writes its frames."""
    nonlocal with_face, reference
    chosen = [j for j, (i, _) in enumerate(batch) if np.isfinite(boxes[i, 0])]
    first = count - len(batch)
    new = {}
    if chosen:
      crops = np.stack(
        [faces.crop(batch[j][1], boxes[batch[j][0]], size) for j in chosen]
      )
      if options.reference == "first" and reference is None:
        reference = crops[0]
      generated = generator(
        variables, crops, mels[[first + j for j in chosen]], reference
      )
      new = dict(zip(chosen, generated, strict=True))
    for j, (i, frame) in enumerate(batch):
      if j in new:
        feathered = options.paste == "feathered"
        frame = faces.paste(frame, new[j], boxes[i], feathered)
      writer.write(frame)
    with_face += len(chosen)

  count, batch = 0, []
  with video.VideoWriter(outfile, fps, waveform, sample_rate) as writer:
    looped = _looped(frames, len(boxes), options.loop)
    for item in tqdm.tqdm(
      itertools.islice(looped, total),
      total=total,
      desc="lip-syncing",
      unit="frame",
    ):
      batch.append(item)
      count += 1
      if len(batch) == batch_size:
        finish(batch, writer)
        batch = []
    if batch:
      finish(batch, writer)
  return Summary(
    frames=count,
    with_face=with_face,
    seconds=count / float(fps),
    silent=not np.any(np.abs(waveform) > _SILENT),
  )
