"""Figures of video files: faces are found, tracked and cut out first.

Either videos as they are (of whatever system), or videos that a generator
makes of pairs of a face and a speech.  One row for each face track, as
syncnet_python has it.
"""

import contextlib
import dataclasses
import glob
import os
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import scipy.signal
from tqdm import auto as tqdm

from w2l_jax import (
  audio,
  detectors,
  evaluate_sync,
  faces,
  tracking,
  video,
  windows,
)
from w2l_jax.evaluate_sync import Protocol
from w2l_jax.evaluation.results import Results
from w2l_jax.judges import Features
from w2l_jax.pairs import Pair

SYNCNET_PICTURES = ("tracked", "whole")
# syncnet_python's run_pipeline.py: a square around the box, wider than it and
# lower, of the box's half side; what lies outside the frame is grey.
_CROP_SCALE = 0.4
_SMOOTHED = 13
_GREY = 110


@dataclasses.dataclass(frozen=True)
class Track:
  """A face in a stretch of a video.

  Attributes:
    frames: which.
    boxes: [n, 4] of them.
  """

  frames: slice
  boxes: np.ndarray


def list_videos(folder: str) -> tuple[list[str], np.ndarray]:
  """Lists the files below a folder, whatever they are.

  Returns:
    (paths below it, seconds of their sound): 0 where there is none, so that
    what is no video is tried and listed as a failure, not left out.

  Raises:
    MediaError: if there are none.
  """
  names = sorted(
    os.path.relpath(os.path.join(parent, file), folder)
    for parent, _, files in os.walk(folder)
    for file in files
    if not file.startswith(".")
  )
  if not names:
    raise video.MediaError(f"{folder}: has no files, expected videos")
  seconds = np.zeros(len(names))
  for i, name in enumerate(names):
    with contextlib.suppress(video.MediaError):
      waveform, rate = video.read_audio(os.path.join(folder, name))
      seconds[i] = len(waveform) / rate
  return names, seconds


def find(folder: str, name: str, what: str) -> str:
  """Finds the file that a pair list names, with or without suffix.

  Args:
    folder: where.
    name: path below it.
    what: "video" or "sound", for the message.

  Raises:
    MediaError: if there is none.
  """
  path = os.path.join(folder, name)
  if os.path.isfile(path):
    return path
  found = sorted(
    p for p in glob.glob(f"{glob.escape(path)}.*") if os.path.isfile(p)
  )
  readable = _have_pictures if what == "video" else _have_sound
  usable = [p for p in found if readable(p)]
  if not found:
    raise video.MediaError(f"{path}: no such file, with any suffix")
  if not usable:
    raise video.MediaError(f"{found[0]}: has no {what}")
  return usable[0]


def _have_pictures(path: str) -> bool:
  try:
    return video.has_video(path)
  except video.MediaError:
    return False


def _have_sound(path: str) -> bool:
  try:
    video.read_audio(path)
  except video.MediaError:
    return False
  return True


def find_tracks(
  path: str, detector: str, how: faces.Tracking, min_frames: int
) -> list[Track]:
  """Follows the face that launch.lipsync draws, at 25 frames a second.

  In every scene the largest by area and time; where it is lost in between, or
  the scene ends, a track does.

  Raises:
    MediaError: if there is none for long enough.
  """
  shape, count, longest, tracks = [], 0, 0, []

  def frames():
    for frame in video.frames_at_rate(path, windows.FPS):
      shape[:] = frame.shape[:2]
      yield frame

  for scene in tracking.scenes(
    frames(), detectors.make(detector), how, exact_ends=True
  ):
    count = scene.stop
    chosen = tracking.choose(scene, "largest", *shape)
    for track in sorted(chosen, key=lambda t: t.start):
      frame_count = track.stop - track.start
      longest = max(longest, frame_count)
      if frame_count >= min_frames:
        boxes = faces.smooth_boxes(track.boxes(), how.smooth_frames)
        tracks.append(Track(slice(track.start, track.stop), boxes))
  if count < min_frames:
    raise video.MediaError(
      f"{path}: has {count} frames, fewer than {min_frames}"
    )
  if not tracks:
    raise video.MediaError(
      f"{path}: no face in {min_frames} frames on end (the longest track has "
      f"{longest} of {count})"
    )
  return tracks


def face_crops(
  path: str, track: Track, size: int, crop_rule: str
) -> Iterator[np.ndarray]:
  """Yields a track's face crops [size, size, 3], as preparation cuts them."""
  boxes = faces.cut_boxes(track.boxes, crop_rule)
  for frame, box in zip(_frames_of(path, track), boxes, strict=True):
    yield faces.crop(frame, box, size)


def syncnet_crops(path: str, track: Track) -> Iterator[np.ndarray]:
  """Yields a track's faces with their surroundings, as SyncNet saw them."""
  x1, y1, x2, y2 = track.boxes.T.astype(np.float64)
  half, x, y = (
    scipy.signal.medfilt(values, _SMOOTHED)
    for values in (
      np.maximum(x2 - x1, y2 - y1) / 2,
      (x1 + x2) / 2,
      (y1 + y2) / 2,
    )
  )
  for i, frame in enumerate(_frames_of(path, track)):
    yield syncnet_crop(frame, half[i], x[i], y[i])


def syncnet_crop(
  frame: np.ndarray, half: float, x: float, y: float
) -> np.ndarray:
  """Cuts one face with its surroundings out of a frame.

  Args:
    frame: [H, W, 3] uint8.
    half: half the side of the face's box.
    x, y: its middle.

  Returns:
    [224, 224, 3]: from half a box above the middle to 1.8 below, and 1.4 to
    either side.
  """
  border = int(half * (1 + 2 * _CROP_SCALE))
  padded = cv2.copyMakeBorder(
    frame, border, border, border, border, cv2.BORDER_CONSTANT,
    value=(_GREY,) * 3,
  )  # fmt: skip
  x, y = x + border, y + border
  top, bottom = int(y - half), int(y + half * (1 + 2 * _CROP_SCALE))
  side = half * (1 + _CROP_SCALE)
  cut = padded[top:bottom, int(x - side) : int(x + side)]
  return cv2.resize(cut, (224, 224))


def _frames_of(path: str, track: Track) -> Iterator[np.ndarray]:
  for i, frame in enumerate(video.frames_at_rate(path, windows.FPS)):
    if i >= track.frames.stop:
      return
    if i >= track.frames.start:
      yield frame


class VideoJudges:
  """Every judge, with the pictures that it takes of a video."""

  def __init__(self, judges: list, syncnet_pictures: str, preparation: dict):
    """Takes judges of judges.py, one of SYNCNET_PICTURES, and how to prepare.

    Of `preparation`, a config's, the crop rule and audio padding are asked.
    """
    if syncnet_pictures not in SYNCNET_PICTURES:
      raise ValueError(
        f"syncnet_pictures is {syncnet_pictures!r}, expected one of "
        f"{SYNCNET_PICTURES}"
      )
    self.judges = judges
    self._whole = syncnet_pictures == "whole"
    self._padding = preparation["audio_padding"]
    self._crop_rule = preparation["crop_rule"]

  def _pictures(self, judge, path: str, track: Track) -> Iterable[np.ndarray]:
    if judge.name != "syncnet":
      return face_crops(path, track, judge.picture_size, self._crop_rule)
    return (
      _frames_of(path, track) if self._whole else syncnet_crops(path, track)
    )

  def __call__(
    self,
    path: str,
    track: Track,
    waveform: np.ndarray,
    *,
    held: bool = False,
  ) -> dict[str, Features]:
    """Judges one track beside a sound.

    Args:
      path: of the video.
      track: in it.
      waveform: [samples] at 16 kHz, sample 0 at the track's first frame.
      held: whether the track's first picture stands for all.

    Returns:
      {judge: features}.

    Raises:
      ValueError: if there is not one window.
    """
    count = min(
      track.frames.stop - track.frames.start,
      -(-len(waveform) * windows.FPS // audio.SAMPLE_RATE),
    )
    mel = audio.log_mel(waveform, padding=self._padding)
    found = {}
    for judge in self.judges:
      pictures = self._pictures(judge, path, track)
      if held:
        first = next(iter(pictures))
        pictures = (first for _ in range(count))
      found[judge.name] = judge(pictures, waveform, mel)
    return found


def sound_of(path: str) -> np.ndarray:
  """Reads a file's sound at 16 kHz; errors as video.read_audio."""
  return audio.resample(*video.read_audio(path))


def _cut(waveform: np.ndarray, track: Track) -> np.ndarray:
  per_frame = audio.SAMPLE_RATE // windows.FPS
  return waveform[
    track.frames.start * per_frame : track.frames.stop * per_frame
  ]


def evaluate(
  folder: str,
  pairs: list[Pair],
  make: Callable | None,
  judges: VideoJudges,
  preparation: dict,
  protocol: Protocol,
  show: Callable,
) -> Results:
  """Scores videos, of a generator or as they are.

  Args:
    folder: where the pairs' files are.
    pairs: what to score; without a generator, face and speech are one video.
    make: make(face, speech, name) -> path of the generated video; None: the
      videos as they are.
    judges: with their pictures.
    preparation: of the judge's or generator's config: detector and tracking.
    protocol: how.
    show: called with (name, {variant: path}) for the first `protocol.shown`.
  """
  results = Results()
  tests = evaluate_sync.JudgeTests(judges.judges, protocol)
  tested, shown_so_far = set(), 0
  how = faces.Tracking(**preparation["tracking"])

  def tracks_of(path):
    return find_tracks(path, preparation["detector"], how, protocol.min_frames)

  def own(variant, path, name):
    """A video beside its own sound: (variant, track, features) of each."""
    waveform, found = sound_of(path), []
    tracks = tracks_of(path)
    for i, track in enumerate(tracks):
      try:
        features = judges(path, track, _cut(waveform, track))
      except ValueError as e:  # Of one track: the sound ends before it, say.
        if len(tracks) == 1:
          raise
        results.fail(f"{name}, {variant}, track {i}", str(e))
        continue
      found.append((variant, (path, i), features))
    return found

  def given(pair, name):
    path = find(folder, pair.face, "video")
    return own("given", path, name), {"given": path}

  def generated(pair, name):
    face = find(folder, pair.face, "video")
    speech = find(folder, pair.speech, "sound")
    track, waveform = tracks_of(face)[0], sound_of(speech)
    shown = {"unsynced": face, "generated": make(face, speech, name)}
    found = own("generated", shown["generated"], name)
    if _have_pictures(speech):
      shown = {"real": speech, **shown}
      found += own("real", speech, name)
    for variant, held in (("unsynced", False), ("copied", True)):
      features = judges(face, track, waveform, held=held)
      found.append((variant, (face, 0), features))
    return found, shown

  for pair in tqdm.tqdm(pairs, desc="scoring", unit="video"):
    name = f"{pair.face} says {pair.speech}" if make else pair.face
    try:
      # All of it first: a pair is scored as a whole or listed.
      found, shown = (generated if make else given)(pair, name)
    except (ValueError, OSError) as e:
      results.fail(name, str(e))
      continue
    for variant, key, by_judge in found:
      figures = {}
      for judge, features in by_judge.items():
        figures |= evaluate_sync.measure(
          results, judge, variant, features, protocol
        )
        if variant in ("real", "given") and key not in tested:
          tests.add(judge, features)
      if variant in ("real", "given"):
        tested.add(key)
      names = {"clip": name, "variant": variant, "track": str(key[1])}
      results.add(names, figures)
    if shown_so_far < protocol.shown:
      show(name, shown)
      shown_so_far += 1
  tests.finish(results)
  return results
