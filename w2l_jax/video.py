"""Video and audio files through PyAV: decoding by timestamps, encoding.

The only module that knows containers and codecs; no ffmpeg program is needed.
Frames are BGR uint8 [H, W, 3].  Errors are `MediaError`s that name the file.
"""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np

from w2l_jax import audio as audio_lib

# A frame that stays on screen longer than this is a broken time stamp, not a
# still: converting it to a constant rate would repeat it without end.
_LONGEST_FRAME_SECONDS = 600.0
# Audio that starts this much later than the last sample ended is moved there.
_AUDIO_GAP_SECONDS = 0.04
# FFmpeg's fast conversion to 4:2:0 takes 4 of 255 levels from blue.
_EXACT = av.video.reformatter.Interpolation.BILINEAR | (
  av.video.reformatter.Interpolation.ACCURATE_RND
)
_AAC_RATES = (
  8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000
)  # fmt: skip


class MediaError(ValueError):
  """A media file cannot be used; the message names it and says why."""


@contextlib.contextmanager
def _open(path: str) -> Iterator[av.container.InputContainer]:
  """Opens `path` for reading; FFmpeg's errors become MediaErrors."""
  path = os.fspath(path)
  if not os.path.exists(path):
    raise MediaError(f"{path}: no such file")
  if os.path.isdir(path):
    raise MediaError(f"{path}: a folder, expected a file")
  if os.path.getsize(path) == 0:
    raise MediaError(f"{path}: the file is empty")
  try:
    container = av.open(path, metadata_errors="replace")
  except (av.FFmpegError, UnicodeError) as e:
    raise MediaError(
      f"{path}: not a video or sound file that FFmpeg can open, or cut off "
      f"before its index ({e.strerror if hasattr(e, 'strerror') else e})"
    ) from e
  with container:
    yield container


def has_video(path: str) -> bool:
  """Tells whether the file has pictures."""
  with _open(path) as container:
    return bool(container.streams.video)


def frame_rate(path: str) -> Fraction:
  """Returns the video's average frames a second."""
  with _open(path) as container:
    stream = _video_stream(container, path)
    rate = stream.average_rate or stream.guessed_rate
    if not rate or rate <= 0 or rate > 1000:
      raise MediaError(f"{path}: its frame rate reads as {rate}")
    return Fraction(rate)


def _video_stream(container, path) -> av.video.stream.VideoStream:
  if not container.streams.video:
    raise MediaError(f"{path}: has no video stream")
  stream = container.streams.video[0]
  stream.thread_type = "AUTO"
  return stream


def _seconds(stream: av.stream.Stream) -> float:
  """The length that the header promises, 0 if it promises none."""
  return float((stream.duration or 0) * (stream.time_base or 0))


def _upright(frame: av.VideoFrame) -> np.ndarray:
  """Converts to BGR and applies the display rotation that phones write."""
  image = frame.to_ndarray(format="bgr24")
  # The angle is counter-clockwise, in [-180, 180].
  turns = round(frame.rotation / 90) % 4
  return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def decode_frames(path: str) -> Iterator[tuple[float, float, np.ndarray]]:
  """Decodes a video frame by frame.

  Yields:
    (time, duration, frame): seconds from the first frame, seconds it is meant
    to last (by its own time stamps or the average rate), BGR uint8.

  Raises:
    MediaError: if there is no video stream, a frame cannot be decoded, or the
      file ends well before the number of frames that its header promises.
  """
  with _open(path) as container:
    stream = _video_stream(container, path)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    promised, length = stream.frames, _seconds(stream)
    count, first, last = 0, None, -1.0
    try:
      for frame in container.decode(stream):
        time = frame.time if frame.time is not None else count / rate
        first = time if first is None else first
        time -= first
        # Streams with broken time stamps still play in decoding order.
        if time <= last:
          time = last + 1 / rate
        last = time
        duration = float((frame.duration or 0) * (frame.time_base or 0))
        count += 1
        yield time, duration or 1 / rate, _upright(frame)
    except av.FFmpegError as e:
      raise MediaError(
        f"{path}: damaged or cut off: decoding stopped after {count} frames "
        f"({e.strerror})"
      ) from e
    if not count:
      raise MediaError(f"{path}: its video stream has no frames")
    # The header's number also counts frames that an edit list hides (a file
    # trimmed without encoding); its length does not.
    if count < 0.9 * promised - 1 and (
      not length or last + 1 / rate < 0.9 * length
    ):
      raise MediaError(
        f"{path}: damaged or cut off: {count} frames where its header promises "
        f"{promised}"
      )


def frames_at_rate(path: str, fps: float) -> Iterator[np.ndarray]:
  """Decodes to a constant frame rate by time stamps.

  Output frame k is the source frame nearest in time to k / fps, so that it
  stays in place beside the sound whatever the source's rate, constant or not.

  Args:
    path: a video.
    fps: frames a second.

  Yields:
    BGR uint8 frames.
  """
  k, previous, previous_time, end = 0, None, 0.0, 0.0
  for time, duration, frame in decode_frames(path):
    if time - previous_time > _LONGEST_FRAME_SECONDS:
      raise MediaError(
        f"{path}: its time stamps jump from {previous_time:.2f} s to "
        f"{time:.2f} s"
      )
    if previous is not None:
      middle = (previous_time + time) / 2
      while k / fps < middle:
        yield previous
        k += 1
    previous, previous_time = frame, time
    end = time + min(duration, _LONGEST_FRAME_SECONDS)
  total = max(k, round(end * fps), 1)
  while k < total:
    yield previous
    k += 1


def read_audio(path: str) -> tuple[np.ndarray, int]:
  """Reads sound so that sample 0 is the instant of the first video frame.

  Where sound starts later than the pictures, zeros come before it; where it
  starts earlier, what precedes the first frame is cut.  In a file without
  pictures sample 0 is the first sample.

  Args:
    path: any sound or video file.

  Returns:
    (waveform [samples, channels] float32 in [-1, 1], sample rate in Hz).

  Raises:
    MediaError: if there is no sound, it cannot be decoded, or the file ends
      well before the length that its header promises.
  """
  with _open(path) as container:
    if not container.streams.audio:
      raise MediaError(f"{path}: has no audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
      raise MediaError(
        f"{path}: its sound is in a format that FFmpeg cannot decode, or the "
        "file is cut off"
      )
    rate, channels = stream.rate, stream.channels
    converter = av.AudioResampler(
      format="fltp", layout=stream.layout, rate=rate
    )
    pieces, position, start = [], 0, None
    try:
      for frame in container.decode(stream):
        time = frame.time
        for piece in converter.resample(frame):
          samples = piece.to_ndarray()
          if start is None:
            start = time or 0.0
          elif time is not None:
            gap = round((time - start) * rate) - position
            if gap > _AUDIO_GAP_SECONDS * rate:
              gap = min(gap, int(_LONGEST_FRAME_SECONDS * rate))
              pieces.append(np.zeros((channels, gap), np.float32))
              position += gap
          pieces.append(samples)
          position += samples.shape[1]
    except av.FFmpegError as e:
      raise MediaError(
        f"{path}: its sound is damaged or cut off: decoding stopped after "
        f"{position / rate:.2f} s ({e.strerror})"
      ) from e
    # Containers that count their packets also know their length.
    length = _seconds(stream) if stream.frames else 0.0
    pictures = bool(container.streams.video)
  if not position:
    raise MediaError(f"{path}: its audio stream has no samples")
  if position / rate < 0.9 * length - 0.1:
    raise MediaError(
      f"{path}: damaged or cut off: {position / rate:.2f} s of sound where its "
      f"header promises {length:.2f} s"
    )
  waveform = np.concatenate(pieces, axis=1).T
  if pictures:
    shift = round((start - _first_frame_time(path)) * rate)
    if shift > 0:
      silence = np.zeros((shift, channels), np.float32)
      waveform = np.concatenate([silence, waveform])
    elif shift < 0:
      waveform = waveform[-shift:]
      if not len(waveform):
        raise MediaError(f"{path}: its sound ends before its first frame")
  return waveform, rate


def _first_frame_time(path: str) -> float:
  with _open(path) as container:
    stream = _video_stream(container, path)
    try:
      frame = next(container.decode(stream), None)
    except av.FFmpegError:
      return 0.0
    return frame.time if frame is not None and frame.time is not None else 0.0


def read_image(path: str) -> np.ndarray | None:
  """Reads a still picture, BGR uint8; None if the file is not a picture."""
  path = os.fspath(path)
  if not os.path.isfile(path) or not cv2.haveImageReader(path):
    return None
  with open(path, "rb") as f:
    data = np.frombuffer(f.read(), np.uint8)
  return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None


class VideoWriter:
  """Writes an H.264 (+ AAC) file; it has its final name only when complete.

  Use as a context manager; `write` takes one frame at a time.  If the block
  ends with an exception, the partial file is removed.
  """

  def __init__(
    self,
    path: str,
    fps: float | Fraction,
    waveform: np.ndarray | None = None,
    sample_rate: int = audio_lib.SAMPLE_RATE,
    crf: int = 18,
  ):
    """Prepares to write; the file is opened at the first frame.

    Args:
      path: what to write; the suffix names the container (.mp4, .mkv, .mov).
      fps: frames a second.
      waveform: [samples] or [samples, channels] floats in [-1, 1], in place:
        sample 0 belongs to the first frame.  None or none writes no sound.
      sample_rate: of `waveform`, Hz.
      crf: x264's constant rate factor; 18 is visually lossless, 0 is lossless.
    """
    self._path = os.fspath(path)
    folder, name = os.path.split(self._path)
    self._partial = os.path.join(folder, f".{os.getpid()}.partial.{name}")
    self._fps = Fraction(fps).limit_denominator(1001 * 100)
    self._crf = crf
    self._container = None
    self._count = 0
    self._samples = None
    if waveform is not None and len(waveform):
      waveform = np.asarray(waveform, np.float32)
      waveform = waveform.reshape(len(waveform), -1)
      if waveform.shape[1] > 2:
        waveform = waveform.mean(axis=1, keepdims=True)
      if sample_rate not in _AAC_RATES:
        waveform = np.stack(
          [audio_lib.resample(c, sample_rate, 48000) for c in waveform.T], 1
        )
        sample_rate = 48000
      self._samples = np.clip(waveform, -1, 1)
    self._sample_rate = sample_rate
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
    if height % 2 or width % 2:
      frame = np.pad(
        frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"
      )
    picture = av.VideoFrame.from_ndarray(
      np.ascontiguousarray(frame), format="bgr24"
    )
    picture = picture.reformat(format="yuv420p", interpolation=_EXACT)
    picture.pts = self._count
    picture.time_base = 1 / self._fps
    self._container.mux(self._video.encode(picture))
    self._count += 1
    self._write_audio(round(self._count / self._fps * self._sample_rate))

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
    self._video = self._container.add_stream("libx264", rate=self._fps)
    self._video.width = width + width % 2
    self._video.height = height + height % 2
    self._video.pix_fmt = "yuv420p"
    self._video.options = {"crf": str(self._crf), "preset": "medium"}
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
    block = self._samples[self._samples_written : until]
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
