"""A trained generator at use: faces and speech in, faces out.

Training's samples and evaluations call this, and so does lip_syncer.py, which
has videos and sound around it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from w2l_jax import audio, checkpoints, network_inputs, windows
from w2l_jax.models import Generator

# Frames that a CPU draws at a time: it holds the maps of so many, not of all.
_CPU_PART = 8


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


def draw(
  model: Generator, variables: dict, mels: jax.Array, faces: jax.Array
) -> jax.Array:
  """Applies a generator to many frames, on CPUs some at a time.

  Args:
    model: of `make_model`.
    variables: its.
    mels, faces: its inputs.

  Returns:
    [n, S, S, 3] float32.
  """
  if jax.default_backend() != "cpu" or len(mels) % _CPU_PART:
    return model.apply(variables, mels, faces)
  parts = [x.reshape(-1, _CPU_PART, *x.shape[1:]) for x in (mels, faces)]
  drawn = jax.lax.map(lambda part: model.apply(variables, *part), tuple(parts))
  return drawn.reshape(-1, *drawn.shape[2:])


def mel_windows(
  mel: np.ndarray, starts: np.ndarray, columns: int
) -> np.ndarray:
  """Windows of a spectrogram, silent where it has no columns.

  Args:
    mel: [T_mel, F].
    starts: [n] int, first columns; before 0 and past the end is silence.
    columns: M.

  Returns:
    [n, M, F].
  """
  wanted = starts[:, None] + np.arange(columns)
  found = mel[np.clip(wanted, 0, len(mel) - 1)]
  found[(wanted < 0) | (wanted >= len(mel))] = audio.SILENCE
  return found


def mel_starts(frames: np.ndarray, fps: float, offset: int) -> np.ndarray:
  """The first mel column of each frame's window, [n] to [n].

  Args:
    frames: numbers of frames.
    fps: of the video.
    offset: in frames of 1/25 s, as in training.
  """
  # In this video's frames the offset is offset * fps / 25.
  return windows.mel_start(frames + offset * fps / windows.FPS, fps)


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
  return mel_windows(
    mel, mel_starts(np.arange(num_frames), fps, offset), columns
  )


def original_frame_count(
  num_columns: int, fps: float, columns: int, offset: int
) -> int:
  """How many frames the original writes for a mel of `num_columns` columns.

  Those whose window is whole, and one that takes the last window
  (inference.py).  Other arguments as in `frame_mels`.
  """
  most = int(np.ceil(num_columns * fps / windows.MEL_COLUMNS_PER_SECOND)) + 1
  starts = mel_starts(np.arange(most), fps, offset)
  return int(np.argmax(starts + columns > num_columns)) + 1


class FaceGenerator:
  """A generator with its variables: faces and mels in, faces out."""

  def __init__(self, config, batch_size: int = 16, truncate: bool = False):
    """Compiles nothing yet; one batch shape is compiled at first use.

    Args:
      config: of the generator, or a checkpoint's.
      batch_size: frames at a time.
      truncate: to whole levels, as the original does, in place of rounding;
        then no algorithm is used either that rounds more than it has to.
    """
    self._batch_size = batch_size
    self._inputs = model_inputs(config)
    model, order = make_model(config), config["channel_order"]
    model = model.clone(for_inference=not truncate)

    @jax.jit
    def generate(variables, mels, frames, references):
      frames, references = (
        network_inputs.to_float(x, order) for x in (frames, references)
      )
      fake = draw(
        model,
        variables,
        network_inputs.mel_image(mels),
        network_inputs.generator_faces(frames, references),
      )
      return network_inputs.to_pictures(fake, order, truncate)

    self._generate = generate

  def compile(self, variables: dict) -> None:
    """Compiles ahead of the first use, by drawing nothing once."""
    mel, faces = (x.shape for x in self._inputs)
    self(
      variables,
      np.zeros((1, *faces[1:3], 3), np.uint8),
      np.zeros((1, mel[2], mel[1]), np.float32),
    )

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
      reference: [n, S, S, 3], or [S, S, 3] for all; None: each frame is its
        own, as in the original.

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
    path: a workdir or step folder of stage 2, a file of weights, or a name of
      released.names.
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
