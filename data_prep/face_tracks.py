"""A clip's face tracks, cut out: of a video, or of a folder of crops.

Faces are followed by w2l_jax.tracking, or boxes are given.  What tracks and
sound become together is clips.py's matter.
"""

import collections
import contextlib
import dataclasses
import math
import os
import re
import time
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from data_prep import records
from data_prep.settings import BOXES, MIN_FRAMES, SetAside, Settings
from w2l_jax import detectors, faces, tracking, video, windows

# Frames are decoded once if they fit in here, else twice: once to find faces,
# once to cut them out.  Per worker; a minute of 360x288, four seconds of 1080p.
_KEPT_BYTES = 600 * 2**20
# Wav2Lip's preprocess.py leaves crops named by their frame and this file.
CROPS_SOUND = "audio.wav"
CROP_NAME = re.compile(r"(\d+)\.jpg")
# Whose boxes such crops were cut by; goes in the place of the detector's name.
CROPS_DETECTOR = "s3fd"


class Laps(collections.Counter):
  """Seconds by the name of what was done in them."""

  @contextlib.contextmanager
  def lap(self, name: str) -> Iterator[None]:
    """The time inside counts."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self[name] += time.perf_counter() - start

  def timed(self, name: str, steps: Iterable) -> Iterator:
    """Passes on what `steps` yields; the time that they take counts."""
    steps = iter(steps)
    while True:
      with self.lap(name):
        step = next(steps, None)
      if step is None:
        return
      yield step


@dataclasses.dataclass
class Track:
  """A face over time, cut out.

  Attributes:
    start: its first frame, counted at 25 a second.
    boxes: [T, 4], NaN where not known.
    times: [k] the frames in which it was detected.
    scores: [k] of these detections.
    crops: T JPEGs.
    sharpness: {frame: of some of its crops}
  """

  start: int
  boxes: np.ndarray
  times: np.ndarray
  scores: np.ndarray
  crops: list[bytes] = dataclasses.field(default_factory=list)
  sharpness: dict[int, float] = dataclasses.field(default_factory=dict)

  def add(self, crop: np.ndarray, quality: int) -> None:
    """Appends its next crop [S, S, 3] uint8."""
    time = self.start + len(self.crops)
    if time % 5 == 0 or not self.crops:
      self.sharpness[time] = records.sharpness(crop)
    self.crops.append(records.jpeg(crop, quality))


class _Frames:
  """A video's frames at 25 a second, to be gone through more than once."""

  def __init__(self, path: str):
    self._path = path
    self._kept: list[np.ndarray] | None = None

  def __iter__(self) -> Iterator[np.ndarray]:
    if self._kept is not None:
      yield from self._kept
      return
    kept, size = [], 0
    for frame in video.frames_at_rate(self._path, windows.FPS, intact=True):
      if size <= _KEPT_BYTES:
        kept.append(frame)
        size += frame.nbytes
      else:
        kept.clear()
      yield frame
    if size <= _KEPT_BYTES:
      self._kept = kept


def of_video(
  path: str, clip_id: str, settings: Settings, laps: Laps
) -> list[Track]:
  """Follows the faces of a video and cuts them out.

  Returns:
    At least one track of MIN_FRAMES or more.

  Raises:
    SetAside: if there is none.
    video.MediaError: if the video cannot be decoded.
  """
  frames, count = _Frames(path), 0

  def counted():
    nonlocal count
    for frame in laps.timed("decode", frames):
      count += 1
      yield frame

  if settings.detector.startswith(BOXES):
    for _ in counted():
      pass
    folder = settings.detector.removeprefix(BOXES)
    found = _given_tracks(folder, clip_id, count, settings.tracking)
  else:
    find = detectors.make(settings.detector)

    def detector(frame):
      with laps.lap("detect"):
        return find(frame)

    found = [
      Track(
        track.start,
        track.boxes(),
        np.array(track.times),
        np.array(track.scores),
      )
      for scene in tracking.scenes(counted(), detector, settings.tracking)
      for track in scene.tracks
    ]
  if count < MIN_FRAMES:
    raise SetAside(
      f"has {count} frames at 25 a second, fewer than {MIN_FRAMES}"
    )
  tracks = [track for track in found if len(track.boxes) >= MIN_FRAMES]
  if not tracks:
    seen = set()
    for track in found:
      seen.update(range(track.start, track.start + len(track.boxes)))
    raise SetAside(
      f"no face in {MIN_FRAMES} frames on end ({len(seen)} of {count} frames "
      "have one)"
    )
  if settings.keep_faces == "largest":
    tracks = _largest(tracks)
  for track in tracks:
    track.boxes = faces.smooth_boxes(
      track.boxes, settings.tracking.smooth_frames
    )
  cut = [faces.cut_boxes(track.boxes, settings.crop_rule) for track in tracks]
  for i, frame in enumerate(laps.timed("decode", frames)):
    with laps.lap("crop"):
      for track, boxes in zip(tracks, cut, strict=True):
        if 0 <= i - track.start < len(boxes):
          box = boxes[i - track.start]
          track.add(
            faces.crop(frame, box, settings.image_size), settings.jpeg_quality
          )
  return tracks


def _largest(tracks: list[Track]) -> list[Track]:
  """Of faces at the same time the largest: who speaks is mostly in front."""

  def area(track):
    return float(np.median(np.prod(track.boxes[:, 2:] - track.boxes[:, :2], 1)))

  kept, taken = [], set()
  for track in sorted(tracks, key=area, reverse=True):
    frames = set(range(track.start, track.start + len(track.boxes)))
    # Two that follow each other may overlap for some frames.
    if 2 * len(frames & taken) <= len(frames):
      kept.append(track)
      taken |= frames
  return sorted(kept, key=lambda track: track.start)


def _given_tracks(
  folder: str, clip_id: str, count: int, rules: faces.Tracking
) -> list[Track]:
  """Reads the boxes that FOLDER/CLIP_ID.csv gives for a clip.

  Its first line names the columns: seconds (from the first frame), x1, y1, x2,
  y2 in pixels of the upright frame, and, if there are any, track (a number) and
  score.  Boxes between two of a track are interpolated, unless it was missed
  for longer than `rules` allow of detections.
  """
  path = os.path.join(folder, f"{clip_id}.csv")
  try:
    rows = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    columns = [rows[name] for name in ("seconds", "x1", "y1", "x2", "y2")]
  except FileNotFoundError as e:
    raise SetAside(f"has no boxes: {path} is not there") from e
  except (ValueError, IndexError, OSError) as e:
    raise SetAside(
      f"its boxes in {path} cannot be read ({e}); expected lines of numbers "
      "below seconds,x1,y1,x2,y2 and, if you like, track and score"
    ) from e
  names = rows.dtype.names
  table = np.stack(columns, axis=1)
  if not np.isfinite(table).all():
    raise SetAside(f"its boxes in {path} have a field that is no number")
  which = rows["track"] if "track" in names else np.zeros(len(rows))
  scores = rows["score"] if "score" in names else np.full(len(rows), np.nan)
  longest = (rules.max_missed + 1) * rules.every_frames / windows.FPS
  tracks = []
  for number in np.unique(which):
    mine = np.flatnonzero(which == number)
    mine = mine[np.argsort(table[mine, 0], kind="stable")]
    gaps = np.flatnonzero(np.diff(table[mine, 0]) > longest + 1e-6)
    for part in np.split(mine, gaps + 1):
      times = table[part, 0] * windows.FPS
      # Times that are whole frames may be a rounding error beside them.
      start = max(0, math.ceil(times[0] - 1e-6))
      stop = min(count, math.floor(times[-1] + 1e-6) + 1)
      if start >= stop:
        continue
      span = np.arange(start, stop)
      boxes = np.stack(
        [np.interp(span, times, table[part, i]) for i in range(1, 5)], axis=1
      )
      tracks.append(
        Track(start, boxes.astype(np.float32), times.round(), scores[part])
      )
  return sorted(tracks, key=lambda track: track.start)


def of_crops(path: str, settings: Settings) -> list[Track]:
  """Takes the crops {frame}.jpg of a folder of Wav2Lip's preprocess.py.

  They are taken to be 25 a second, as Wav2Lip does.  Frames without a face are
  missing there; a new track begins after them.  What their boxes were is not
  known.

  Raises:
    SetAside: if a crop cannot be read or there are too few on end.
  """
  matches = (CROP_NAME.fullmatch(name) for name in os.listdir(path))
  numbers = sorted(int(match.group(1)) for match in matches if match)
  tracks: list[Track] = []
  for number in numbers:
    image = video.read_image(os.path.join(path, f"{number}.jpg"))
    if image is None:
      raise SetAside(f"{number}.jpg cannot be read as a picture")
    if not tracks or tracks[-1].start + len(tracks[-1].crops) != number:
      none = np.zeros(0)
      tracks.append(Track(number, np.zeros((0, 4)), none, none))
    size = (settings.image_size, settings.image_size)
    tracks[-1].add(cv2.resize(image, size), settings.jpeg_quality)
  kept = [track for track in tracks if len(track.crops) >= MIN_FRAMES]
  if not kept:
    raise SetAside(
      f"has no {MIN_FRAMES} crops on end ({len(numbers)} crops in all)"
    )
  for track in kept:
    track.boxes = np.full((len(track.crops), 4), np.nan, np.float32)
  return kept
