"""What the page does with what people send it; knows no page.

Files come from anybody.  Whoever opens one first is a process of its own, which
may crash, hang or fill its memory without taking the page along; only what it
could read to the end is opened here.
"""

import contextlib
import dataclasses
import itertools
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from data_prep import isolation
from w2l_jax import face_preview, sources, video
from w2l_jax.lip_sync_options import Options
from w2l_jax.progress_bars import Progress


@dataclasses.dataclass(frozen=True)
class Limits:
  """How much one may ask for.

  Attributes:
    seconds: of speech, so of the result.
    megabytes: of a file.
    pixels: of a frame, after it was made smaller.
    frame_rate: of a video; faster ones are converted.
    patience: seconds that reading a file may take.
    keep_minutes: that files are kept.
  """

  seconds: float = 60.0
  megabytes: int = 200
  pixels: int = 1920 * 1088
  frame_rate: float = 60.0
  patience: float = 60.0
  keep_minutes: float = 60.0


class Refused(ValueError):
  """It cannot be done; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for.

  Attributes:
    face: path of a video or photo.
    speech: path of a file with sound; empty for a preview.
    options: of lip_sync_options.Options.
  """

  face: str
  speech: str = ""
  options: dict = dataclasses.field(default_factory=dict)


# --- In a process of its own ------------------------------------------------


def _look(job: tuple[Request, Limits, str]) -> face_preview.FacePreview:
  """Finds faces."""
  request, limits, detector = job
  options = Options(**request.options)
  _check_face(request.face, options, limits)
  return face_preview.preview(
    request.face, options.faces, options.detector or detector, options.edit
  )


def _read(job: tuple[Request, Limits]) -> float:
  """Reads what will be used to its end; returns the seconds of speech."""
  request, limits = job
  options = Options(**request.options)
  seconds = _speech_seconds(request.speech, limits)
  rate = _check_face(request.face, options, limits)
  pictures = sources.open_pictures(
    request.face, rate, options.static, options.edit
  )
  needed = int(seconds * float(pictures.fps)) + 1
  for _ in itertools.islice(pictures.frames(0), needed):
    pass
  return seconds


def _speech_seconds(path: str, limits: Limits) -> float:
  """Reads sound, up to a little more than is allowed."""
  rate, _ = video.audio_format(path)
  samples = 0
  for block in video.audio_blocks(path):
    samples += len(block)
    if samples > limits.seconds * rate:
      raise Refused(
        f"{path}: the speech is longer than the {limits.seconds:.0f} seconds "
        "that this page takes; cut it, or use the command line, which has no "
        "limit"
      )
  return samples / rate


def _check_face(path: str, options: Options, limits: Limits) -> float | None:
  """Checks the size of the frames; returns the rate to convert to, if any."""
  pictures = sources.open_pictures(path, None, True, options.edit)
  height, width = next(pictures.frames(0)).shape[:2]
  if height * width > limits.pixels:
    raise Refused(
      f"{path}: its pictures are {width} x {height}, more than this page "
      'takes; raise "make smaller by" under Options'
    )
  if pictures.still and video.read_image(path) is not None:
    return None
  fast = video.frame_rate(path) > limits.frame_rate
  return limits.frame_rate if fast else None


# --- In the page's process --------------------------------------------------


class Studio:
  """Looks at faces and lip-syncs, one request after the other."""

  def __init__(self, syncer, folder: str, limits: Limits):
    """Takes a LipSyncer, a folder for results, and limits."""
    self.syncer = syncer
    self.limits = limits
    self._folder = folder

  def look(self, request: Request) -> face_preview.FacePreview:
    """Finds the faces that there are.

    Raises:
      Refused: with one sentence.
    """
    detector = self.syncer.config["preparation"]["detector"]
    with _clear(request):
      self._check_files(request.face)
      return self._apart(_look, (request, self.limits, detector))

  def lipsync(
    self, request: Request, progress: Progress = False
  ) -> tuple[str, str]:
    """Makes a video.

    Args:
      request: what is asked for.
      progress: as LipSyncer's.

    Returns:
      (path of the video, what was done, in words).

    Raises:
      Refused: with one sentence.
    """
    with _clear(request):
      self._check_files(request.face, request.speech)
      self._apart(_read, (request, self.limits))
      rate = _check_face(request.face, Options(**request.options), self.limits)
      outfile = os.path.join(tempfile.mkdtemp(dir=self._folder), "lipsync.mp4")
      try:
        summary = self.syncer.write(
          request.face,
          request.speech,
          outfile,
          progress=progress,
          **({"fps": rate} if rate else {}),
          **request.options,
        )
      except BaseException:
        shutil.rmtree(os.path.dirname(outfile), ignore_errors=True)
        raise
      return outfile, _in_words(summary)

  def _check_files(self, *paths: str) -> None:
    for path, what in zip(paths, ("a face", "speech"), strict=False):
      if not path:
        raise Refused(f"choose {what} first")
      if not os.path.isfile(path):
        raise Refused(
          f"{path}: is not here any more (files are kept for "
          f"{self.limits.keep_minutes:.0f} minutes); choose it again"
        )
      if os.path.getsize(path) > self.limits.megabytes * 1_000_000:
        raise Refused(
          f"{path}: is larger than {self.limits.megabytes} MB, which this page "
          "takes"
        )

  def _apart(self, function: Callable, job):
    """Calls function(job) in a process that may die or hang."""
    jobs = isolation.run(function, [job], 1, lambda _: self.limits.patience)
    with contextlib.closing(jobs):
      _, result = next(jobs)
    if isinstance(result, isolation.Lost):
      logging.warning("reading a file: %s", result.reason)
      raise Refused(
        "the files cannot be read: whoever reads them crashes or takes too "
        "long; save them in another format, or take others"
      )
    return result


def _in_words(summary) -> str:
  """What was done, of a LipSyncer's Summary."""
  said = (
    f"{summary.seconds:.1f} seconds, {summary.frames} frames, made in "
    f"{summary.wall_seconds:.1f} seconds."
  )
  if unchanged := summary.frames - summary.with_face:
    said += f" {unchanged} frames have no such face and are unchanged."
  if summary.silent:
    said += " The speech is silent; the mouth stays as in silence."
  return said


@contextlib.contextmanager
def _clear(request: Request) -> Iterator[None]:
  """Turns every error into one sentence without the server's paths."""
  try:
    yield
  except ValueError as e:  # Refused, MediaError, InferenceError.
    text = str(e)
  except Exception:
    logging.exception("unexpected")
    text = "something unexpected went wrong; the server's log says what"
  else:
    return
  for path in (request.face, request.speech):
    if path:
      text = text.replace(path, os.path.basename(path))
  # What are flags there are fields here.
  raise Refused(re.sub(r"--(\w+)", r"\1", text)) from None


class Janitor:
  """Removes files of a folder that have become old."""

  def __init__(self, folder: str, minutes: float):
    """Begins, in a thread that ends with the process."""
    self._folder = folder
    self._seconds = 60 * minutes
    threading.Thread(target=self._work, daemon=True).start()

  def _work(self):
    while True:
      time.sleep(min(60.0, self._seconds))
      self.clean()

  def clean(self) -> None:
    """Removes what is older, and folders that are empty by then."""
    oldest = time.time() - self._seconds
    for parent, _, names in os.walk(self._folder, topdown=False):
      with contextlib.suppress(OSError):
        for path in (os.path.join(parent, name) for name in names):
          if os.path.getmtime(path) < oldest:
            os.unlink(path)
        if parent != self._folder and os.path.getmtime(parent) < oldest:
          os.rmdir(parent)


def as_rgb(picture: np.ndarray) -> np.ndarray:
  """BGR to RGB."""
  return np.ascontiguousarray(picture[..., ::-1])
