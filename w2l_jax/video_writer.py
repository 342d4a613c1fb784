"""Writing H.264 video with AAC sound through PyAV; reading is in video.py."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
import numpy as np
import soxr

from w2l_jax import audio as audio_lib
from w2l_jax.video import Colour, MediaError

# FFmpeg's fast conversion to 4:2:0 takes 4 of 255 levels from blue.
_EXACT = av.video.reformatter.Interpolation.BILINEAR | (
  av.video.reformatter.Interpolation.ACCURATE_RND
)
_AAC_RATES = (
  8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000
)  # fmt: skip
# x264's, from quick to thorough.
PRESETS = (
  "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow",
  "slower", "veryslow",
)  # fmt: skip
SUFFIXES = (".mp4", ".mkv", ".mov")


class VideoWriter:
  """Writes an H.264 (+ AAC) file; it has its final name only when complete.

  Use as a context manager; `write` takes one frame at a time.  If the block
  ends with an exception, the partial file is removed.
  """

  def __init__(
    self,
    path: str,
    fps: float | Fraction,
    waveform: np.ndarray | Iterable[np.ndarray] | None = None,
    sample_rate: int = audio_lib.SAMPLE_RATE,
    crf: int = 18,
    *,
    lossless: bool = False,
    preset: str = "medium",
    colour: Colour = Colour(),  # noqa: B008 (frozen)
    metadata: dict[str, str] | None = None,
  ):
    """Prepares to write; the file is opened at the first frame.

    Args:
      path: what to write; the suffix names the container (.mp4, .mkv, .mov).
      fps: frames a second.
      waveform: [samples] or [samples, channels] floats in [-1, 1], in place:
        sample 0 belongs to the first frame; or blocks [samples, channels] of
        it, taken as frames are written.  None or none writes no sound.
      sample_rate: of `waveform`, Hz.
      crf: x264's constant rate factor; 18 is visually lossless.
      lossless: every pixel as given, as RGB in 4:4:4; few players show it.
      preset: one of PRESETS.
      colour: how the file's numbers are to mean colours.
      metadata: tags of the container.
    """
    self._path = os.fspath(path)
    folder, name = os.path.split(self._path)
    self._partial = os.path.join(folder, f".{os.getpid()}.partial.{name}")
    self._fps = Fraction(fps).limit_denominator(1001 * 100)
    self._crf = crf
    self._lossless = lossless
    self._preset = preset
    self._colour = colour
    self._metadata = metadata or {}
    self._container = None
    self._count = 0
    self._sample_rate = sample_rate
    if sample_rate not in _AAC_RATES:
      self._sample_rate = 48000
    if isinstance(waveform, np.ndarray):
      waveform = [waveform] if len(waveform) else []
    self._sound = _prepared(waveform or [], sample_rate, self._sample_rate)
    # What has been taken and not yet written; None: there is no sound.
    self._samples = next(self._sound, None)
    self._samples_written = 0

  def __enter__(self) -> "VideoWriter":
    return self

  def write(self, frame: np.ndarray) -> None:
    """Appends one BGR uint8 frame; all must have the same size."""
    if self._container is None:
      self._start(*frame.shape[:2])
    height, width = self._shape
    if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
      raise ValueError(
        f"frame {self._count} is {frame.dtype} {frame.shape}, expected uint8 "
        f"{(height, width, 3)}"
      )
    # 4:2:0 needs even sides: the last row or column is repeated.
    if not self._lossless and (height % 2 or width % 2):
      frame = np.pad(
        frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"
      )
    frame = np.ascontiguousarray(frame)
    if self._lossless:
      picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
    else:  # Converted at once: no copy is needed.
      picture = av.VideoFrame.from_numpy_buffer(frame, format="bgr24")
      picture = picture.reformat(
        format="yuv420p",
        interpolation=_EXACT,
        dst_colorspace=self._colour.space,
        dst_color_range=self._colour.range,
      )
    picture.pts = self._count
    picture.time_base = 1 / self._fps
    self._count += 1
    with self._errors():
      self._container.mux(self._video.encode(picture))
      self._write_audio(round(self._count / self._fps * self._sample_rate))

  @contextlib.contextmanager
  def _errors(self) -> Iterator[None]:
    """FFmpeg's errors, a full disk above all, become MediaErrors."""
    try:
      yield
    except av.FFmpegError as e:
      raise MediaError(
        f"{self._path}: writing stopped after {self._count} frames "
        f"({e.strerror})"
      ) from e

  def _start(self, height: int, width: int) -> None:
    self._shape = (height, width)
    try:
      self._container = av.open(self._partial, "w")
      self._add_streams(height, width)
      # Only this opens the file.
      self._container.start_encoding()
    except (av.FFmpegError, ValueError, OSError) as e:
      self._discard()
      raise MediaError(
        f"{self._path}: cannot be written; expected a folder that exists and "
        f"can be written to, and a name that ends in .mp4, .mkv or .mov ({e})"
      ) from e

  def _add_streams(self, height: int, width: int) -> None:
    self._container.metadata.update(self._metadata)
    codec = "libx264rgb" if self._lossless else "libx264"
    self._video = self._container.add_stream(codec, rate=self._fps)
    if self._lossless:
      self._video.width, self._video.height = width, height
      self._video.pix_fmt = "bgr24"
      self._video.options = {"qp": "0", "preset": self._preset}
    else:
      self._video.width = width + width % 2
      self._video.height = height + height % 2
      self._video.pix_fmt = "yuv420p"
      self._video.options = {"crf": str(self._crf), "preset": self._preset}
      context = self._video.codec_context
      context.colorspace = self._colour.space
      context.color_range = self._colour.range
      context.color_primaries = self._colour.primaries
      context.color_trc = self._colour.transfer
    self._audio = None
    if self._samples is not None:
      layout = "stereo" if self._samples.shape[1] == 2 else "mono"
      self._audio = self._container.add_stream(
        "aac", rate=self._sample_rate, layout=layout
      )
      self._audio_layout = layout

  def _write_audio(self, until: int) -> None:
    """Encodes the samples before number `until`, beside their frames."""
    if self._audio is None:
      return
    wanted = until - self._samples_written
    while len(self._samples) < wanted:
      block = next(self._sound, None)
      if block is None:
        break
      self._samples = np.concatenate([self._samples, block])
    block, self._samples = self._samples[:wanted], self._samples[wanted:]
    if not len(block):
      return
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(block.T), format="fltp", layout=self._audio_layout
    )
    frame.sample_rate = self._sample_rate
    frame.pts = self._samples_written
    frame.time_base = Fraction(1, self._sample_rate)
    self._container.mux(self._audio.encode(frame))
    self._samples_written += len(block)

  def __exit__(self, exc_type, exc, traceback) -> None:
    if exc_type is not None or self._container is None:
      self._discard()
      if exc_type is None:
        raise MediaError(f"{self._path}: no frame was written")
      return
    try:
      with self._errors():
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
          self._container.mux(self._audio.encode(None))
        self._container.close()
      os.replace(self._partial, self._path)
    except BaseException:
      self._discard()
      raise

  def _discard(self) -> None:
    if self._container is not None:
      with contextlib.suppress(av.FFmpegError, OSError):
        self._container.close()
    if os.path.exists(self._partial):
      os.remove(self._partial)


def _prepared(
  blocks: Iterable[np.ndarray], sample_rate: int, target_rate: int
) -> Iterator[np.ndarray]:
  """Mono or stereo blocks [samples, channels] within [-1, 1], resampled."""
  stream = None
  for block in blocks:
    block = np.asarray(block, np.float32)
    block = block.reshape(len(block), -1)
    if block.shape[1] > 2:
      block = block.mean(axis=1, keepdims=True)
    if sample_rate != target_rate:
      stream = stream or soxr.ResampleStream(
        sample_rate, target_rate, block.shape[1], dtype="float32", quality="HQ"
      )
      channels = block.shape[1]
      block = stream.resample_chunk(block).reshape(-1, channels)
    yield np.clip(block, -1, 1)
  if stream is not None:
    rest = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    yield np.clip(rest.reshape(-1, channels), -1, 1)


def check_writable(path: str, suffixes: tuple[str, ...] = SUFFIXES) -> None:
  """Refuses, before any work, a path that cannot be written.

  Args:
    path: of a file.
    suffixes: of which it must have one.

  Raises:
    MediaError: if its folder is missing or may not be written to, or its suffix
      names no container.
  """
  path = os.path.abspath(os.fspath(path))
  folder = os.path.dirname(path)
  if not os.path.isdir(folder):
    raise MediaError(f"{path}: cannot be written: there is no folder {folder}")
  if not path.lower().endswith(suffixes):
    raise MediaError(
      f"{path}: cannot be written: expected a name that ends in "
      f"{', '.join(suffixes)}"
    )
  if os.path.isdir(path):
    raise MediaError(f"{path}: cannot be written: it is a folder")
  if not os.access(folder, os.W_OK):
    raise MediaError(
      f"{path}: cannot be written: no permission to write in {folder}"
    )
