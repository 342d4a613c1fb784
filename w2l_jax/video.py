"""Video, sound and picture files through PyAV: decoding by time stamps.

This module and video_writer.py alone know containers and codecs; no ffmpeg
program is needed.  Frames are BGR uint8 [H, W, 3].  Errors are `MediaError`s
that name the file.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np

# A frame that stays on screen longer than this is a broken time stamp, not a
# still: converting it to a constant rate would repeat it without end.
_LONGEST_FRAME_SECONDS = 600.0
# Frames of more pixels than 8K are a broken header, or more than there is
# memory for.
_MOST_PIXELS = 8192 * 8192
# Audio that starts this much later than the last sample ended is moved there.
_AUDIO_GAP_SECONDS = 0.04


class MediaError(ValueError):
  """A media file cannot be used; the message names it and says why."""


@dataclasses.dataclass(frozen=True)
class Colour:
  """How a stream's numbers mean colours, in FFmpeg's (H.273's) own numbers.

  Attributes:
    space: of YUV (1: BT.709, 5 and 6: BT.601).
    range: 1: 16 to 235, 2: 0 to 255.
    primaries: of red, green and blue.
    transfer: from numbers to light.
  """

  space: int = 2  # Unspecified, as the others here.
  range: int = 0
  primaries: int = 2
  transfer: int = 2


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


def colour(path: str) -> Colour:
  """Returns how a video's numbers mean colours, as far as it says so."""
  with _open(path) as container:
    codec = _video_stream(container, path).codec_context
    # 0 is RGB, which has no YUV of its own.
    return Colour(
      int(codec.colorspace) or 2,
      int(codec.color_range),
      int(codec.color_primaries),
      int(codec.color_trc),
    )


def _video_stream(container, path) -> av.video.stream.VideoStream:
  if not container.streams.video:
    raise MediaError(f"{path}: has no video stream")
  stream = container.streams.video[0]
  if stream.codec_context is None:
    raise MediaError(
      f"{path}: its pictures are in a format that FFmpeg cannot decode, or the "
      "file is cut off"
    )
  width, height = stream.width or 0, stream.height or 0
  if width * height > _MOST_PIXELS:
    raise MediaError(
      f"{path}: its frames are {width}x{height}, expected at most "
      f"{_MOST_PIXELS} pixels"
    )
  # Also where frames turn out larger than the header says.
  stream.codec_context.options = {"max_pixels": str(_MOST_PIXELS)}
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


def decode_frames(
  path: str, start: float = 0.0, intact: bool = False
) -> Iterator[tuple[float, float, np.ndarray]]:
  """Decodes a video frame by frame.

  Args:
    path: a video.
    start: seconds from the first frame; above 0, decoding begins with the key
      frame before, where the file can be entered there.
    intact: a frame with damaged parts is an error; else FFmpeg fills them in.

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
    if start > 0:
      first = _first_frame_time(path)
      with contextlib.suppress(av.FFmpegError):
        container.seek(
          int((first + start) / stream.time_base), stream=stream, backward=True
        )
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
        if intact and frame.is_corrupt:
          raise MediaError(
            f"{path}: damaged: parts of frame {count} are missing"
          )
        count += 1
        yield time, duration or 1 / rate, _upright(frame)
    except av.FFmpegError as e:
      raise MediaError(
        f"{path}: damaged or cut off: decoding stopped after {count} frames "
        f"({e.strerror})"
      ) from e
    if not count and start > 0:  # The file cannot be entered there.
      yield from decode_frames(path)
      return
    if not count:
      raise MediaError(f"{path}: its video stream has no frames")
    # The header's number also counts frames that an edit list hides (a file
    # trimmed without encoding); its length does not.
    if (
      start <= 0
      and count < 0.9 * promised - 1
      and (not length or last + 1 / rate < 0.9 * length)
    ):
      raise MediaError(
        f"{path}: damaged or cut off: {count} frames where its header promises "
        f"{promised}"
      )


def frames_at_rate(
  path: str, fps: float, first: int = 0, intact: bool = False
) -> Iterator[np.ndarray]:
  """Decodes to a constant frame rate by time stamps.

  Output frame k is the source frame nearest in time to k / fps, so that it
  stays in place beside the sound whatever the source's rate, constant or not.

  Args:
    path: a video.
    fps: frames a second.
    first: the output frame to begin with; those before are hardly decoded.
    intact: as in decode_frames.

  Yields:
    BGR uint8 frames.
  """
  k, previous, previous_time, end = first, None, 0.0, 0.0
  for time, duration, frame in decode_frames(path, first / fps, intact):
    if previous is not None:
      if time - previous_time > _LONGEST_FRAME_SECONDS:
        raise MediaError(
          f"{path}: its time stamps jump from {previous_time:.2f} s to "
          f"{time:.2f} s"
        )
      middle = (previous_time + time) / 2
      while k / fps < middle:
        yield previous
        k += 1
    elif time > first / fps:  # The file cannot be entered there.
      all_frames = frames_at_rate(path, fps, intact=intact)
      yield from itertools.islice(all_frames, first, None)
      return
    previous, previous_time = frame, time
    end = time + min(duration, _LONGEST_FRAME_SECONDS)
  total = max(k, round(end * fps), 1)
  while k < total:
    yield previous
    k += 1


def read_audio(path: str) -> tuple[np.ndarray, int]:
  """Reads sound so that sample 0 is the instant of the first video frame.

  Args:
    path: any sound or video file.

  Returns:
    (waveform [samples, channels] float32 in [-1, 1], sample rate in Hz).

  Raises:
    MediaError: as `audio_blocks`.
  """
  waveform = np.concatenate(list(audio_blocks(path)))
  return waveform, audio_format(path)[0]


def audio_format(path: str) -> tuple[int, int]:
  """Returns (sample rate in Hz, number of channels) of a file's sound."""
  with _open(path) as container:
    stream = _audio_stream(container, path)
    return stream.rate, stream.channels


def _audio_stream(container, path) -> av.audio.stream.AudioStream:
  if not container.streams.audio:
    raise MediaError(f"{path}: has no audio stream")
  stream = container.streams.audio[0]
  if stream.codec_context is None:
    raise MediaError(
      f"{path}: its sound is in a format that FFmpeg cannot decode, or the "
      "file is cut off"
    )
  return stream


def audio_blocks(path: str, stereo: bool = False) -> Iterator[np.ndarray]:
  """Decodes sound so that sample 0 is the instant of the first video frame.

  Where sound starts later than the pictures, zeros come before it; where it
  starts earlier, what precedes the first frame is cut.  In a file without
  pictures sample 0 is the first sample.

  Args:
    path: any sound or video file.
    stereo: whether more than two channels become two, by FFmpeg's matrix less
      3 dB (of 5.1: sqrt(1/2) of each side, half of centre and surround), so
      that speech, which films have in the centre, is as loud as it was meant.

  Yields:
    [samples, channels] float32 in [-1, 1], one after the other.

  Raises:
    MediaError: if there is no sound, it cannot be decoded, or the file ends
      well before the length that its header promises.
  """
  with _open(path) as container:
    stream = _audio_stream(container, path)
    rate, channels, layout = stream.rate, stream.channels, stream.layout
    gain = 1.0
    if stereo and channels > 2:
      channels, layout, gain = 2, "stereo", 0.5**0.5
    converter = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    pictures = bool(container.streams.video)
    # Samples since the stream's first, and how many to drop before the frames.
    position, start, early, given = 0, None, 0, False
    try:
      for frame in container.decode(stream):
        time = frame.time
        for piece in converter.resample(frame):
          samples = piece.to_ndarray()
          gap = 0
          if start is None:
            start = time or 0.0
            if pictures:
              gap = round((start - _first_frame_time(path)) * rate)
              early, gap = max(0, -gap), max(0, gap)
          elif time is not None:
            gap = round((time - start) * rate) - position
            if gap > _AUDIO_GAP_SECONDS * rate:
              gap = min(gap, int(_LONGEST_FRAME_SECONDS * rate))
              position += gap
            else:
              gap = 0
          position += samples.shape[1]
          if gain != 1:
            samples = samples * np.float32(gain)
          for block in (np.zeros((gap, channels), np.float32), samples.T):
            cut = min(early, len(block))
            early -= cut
            if len(block) > cut:
              given = True
              yield block[cut:]
    except av.FFmpegError as e:
      raise MediaError(
        f"{path}: its sound is damaged or cut off: decoding stopped after "
        f"{position / rate:.2f} s ({e.strerror})"
      ) from e
    # Containers that count their packets also know their length.
    length = _seconds(stream) if stream.frames else 0.0
  if not position:
    raise MediaError(f"{path}: its audio stream has no samples")
  if position / rate < 0.9 * length - 0.1:
    raise MediaError(
      f"{path}: damaged or cut off: {position / rate:.2f} s of sound where its "
      f"header promises {length:.2f} s"
    )
  if not given:
    raise MediaError(f"{path}: its sound ends before its first frame")


def _first_frame_time(path: str) -> float:
  with _open(path) as container:
    stream = _video_stream(container, path)
    try:
      frame = next(container.decode(stream), None)
    except av.FFmpegError:
      return 0.0
    return frame.time if frame is not None and frame.time is not None else 0.0


def _moves(path: str) -> bool:
  """Whether a GIF has more than one picture."""
  with _open(path) as container:
    try:
      return len(list(itertools.islice(container.decode(video=0), 2))) > 1
    except av.FFmpegError:
      return False


def read_image(path: str) -> np.ndarray | None:
  """Reads a still picture, BGR uint8; None if the file is not a picture.

  A GIF that moves is a video, and no picture.  Pictures are turned upright as
  their EXIF says; what is transparent becomes white.
  """
  path = os.fspath(path)
  if not os.path.isfile(path) or not cv2.haveImageReader(path):
    return None
  with open(path, "rb") as f:
    data = np.frombuffer(f.read(), np.uint8)
  if not data.size or (data[:4].tobytes() == b"GIF8" and _moves(path)):
    return None
  image = cv2.imdecode(data, cv2.IMREAD_COLOR)
  raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
  if image is None or raw is None or raw.ndim != 3 or raw.shape[2] != 4:
    return image
  if raw.shape[:2] != image.shape[:2]:  # EXIF turned it.
    return image
  opaque = raw[..., 3:] / np.float32(np.iinfo(raw.dtype).max)
  return np.rint(255 + opaque * (image - np.float32(255))).astype(np.uint8)
