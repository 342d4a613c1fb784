"""Faces over time: scenes, the tracks in each, and who is chosen among them.

Frames come in one after the other and scenes go out, so memory does not grow
with the video but for the boxes themselves (16 bytes a frame and face).  What
finds faces in one frame is in detectors.py, boxes and pictures in faces.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import scipy.optimize

from w2l_jax import faces
from w2l_jax.detectors import Detector

# Frames are compared at this size, in grey: noise and small movements vanish.
_SMALL = (48, 27)
# Two detections of which the smaller is covered to this part are one face.
_SAME_FACE = 0.6
# What a face looks like is judged at this size.
_LOOKS_SIZE = 64


class CutFinder:
  """Tells at which frames a new scene begins, one frame after the other.

  A frame begins a scene if it is unlike the one before: if the mean difference
  of the two, small and grey, is above `threshold` levels and above `ratio`
  times the greatest of the last differences (so that a shaken camera is no
  cut), and the one before began none.  Dissolves and fades are no cuts.
  """

  def __init__(self, threshold: float = 10.0, ratio: float = 3.0):
    """Takes the thresholds; where they come from is in docs/DECISIONS.md."""
    self._threshold = threshold
    self._ratio = ratio
    self._last: np.ndarray | None = None
    self._differences: list[float] = []
    self._jumped = False

  def difference(self, frame: np.ndarray) -> float:
    """Mean difference to the frame before in levels of 255; 0 for the first."""
    small = cv2.cvtColor(
      cv2.resize(frame, _SMALL, interpolation=cv2.INTER_AREA),
      cv2.COLOR_BGR2GRAY,
    ).astype(np.int16)
    last, self._last = self._last, small
    return 0.0 if last is None else float(np.abs(small - last).mean())

  def __call__(self, frame: np.ndarray) -> bool:
    """Whether `frame`, BGR uint8, is the first of a new scene."""
    difference = self.difference(frame)
    usual = max(self._differences, default=0.0)
    cut = not self._jumped and difference > max(
      self._threshold, self._ratio * usual
    )
    # The jump itself is nothing that the next frames are compared with.
    self._differences = [] if cut else [*self._differences[-4:], difference]
    self._jumped = cut
    return cut


@dataclasses.dataclass(eq=False)
class Track:
  """One face, from its first detection to its last.

  Attributes:
    times: [k] the frames in which it was detected.
    found: [k, 4] float32, its boxes there.
    scores: [k] what the detector gave them.
    looks: [D] mean of what `looks` says of it; empty if it was not asked.
    missed: in how many detections in a row.
    eyes: [k, 4] float32, its eyes there, as detectors.py has them; [k, 0] if
      the detector was not asked for them.
  """

  times: list[int]
  found: list[np.ndarray]
  scores: list[float]
  looks: np.ndarray
  missed: int = 0
  eyes: list[np.ndarray] = dataclasses.field(default_factory=list)

  @property
  def start(self) -> int:
    """Its first frame."""
    return self.times[0]

  @property
  def stop(self) -> int:
    """The frame after its last."""
    return self.times[-1] + 1

  def boxes(self) -> np.ndarray:
    """[stop - start, 4] float32: the detections and, linearly, between them."""
    span, found = np.arange(self.start, self.stop), np.array(self.found)
    return np.stack(
      [np.interp(span, self.times, found[:, i]) for i in range(4)], axis=1
    ).astype(np.float32)

  def angles(self) -> np.ndarray:
    """[stop - start] float32 radians by which the eyes' line is turned.

    Clockwise on the screen is positive, 0 is level (and without eyes); linearly
    between detections, the shorter way round.
    """
    span = np.arange(self.start, self.stop)
    eyes = np.array(self.eyes)
    if not eyes.size:
      return np.zeros(len(span), np.float32)
    across, down = (eyes[:, 2:] - eyes[:, :2]).T
    angles = np.unwrap(np.arctan2(down, across))
    return np.interp(span, self.times, angles).astype(np.float32)

  def add(self, time: int, row: np.ndarray, first: bool = False) -> None:
    """Appends a detection [5 or more], or puts it `first`."""
    at = 0 if first else len(self.times)
    self.times.insert(at, time)
    self.found.insert(at, row[:4])
    self.scores.insert(at, float(row[4]))
    self.eyes.insert(at, row[5:])

  def overlaps(self, other: "Track") -> bool:
    """Whether both are seen at the same time."""
    return self.start < other.stop and other.start < self.stop

  def predicted(self, time: int) -> np.ndarray:
    """[4] where its box should be at `time`: moved on as before."""
    last = self.found[-1]
    if len(self.found) < 2:
      return last
    passed = self.times[-1] - self.times[-2]
    movement = (last - self.found[-2]).reshape(2, 2).mean(axis=0) / passed
    return last + np.tile(movement * (time - self.times[-1]), 2)


@dataclasses.dataclass
class Scene:
  """Frames between two cuts.

  Attributes:
    start: its first frame.
    stop: the frame after its last.
    tracks: all faces in it, by their first frame.
  """

  start: int
  stop: int
  tracks: list[Track]


def looks(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
  """What a face looks like, for telling people of one video apart.

  Gradients (HOG) and colours of the face's box.  No recogniser: it knows a
  person again in the same light and much the same pose.

  Returns:
    [D] float32 of length 1.
  """
  face = faces.crop(frame, box, _LOOKS_SIZE)
  hog = cv2.HOGDescriptor(
    (_LOOKS_SIZE, _LOOKS_SIZE), (16, 16), (8, 8), (8, 8), 9
  )
  lab = cv2.cvtColor(face, cv2.COLOR_BGR2LAB)
  colours = np.concatenate(
    [
      np.histogram(lab[..., i], 16, (0, 256), density=True)[0] ** 0.5
      for i in range(3)
    ]
  )
  parts = [hog.compute(face).ravel(), colours]
  return np.concatenate(
    [p / max(np.linalg.norm(p), 1e-9) / np.sqrt(len(parts)) for p in parts]
  ).astype(np.float32)


def distinct(found: np.ndarray, min_score: float) -> np.ndarray:
  """Detections [n, 5] that are sure and not of a face that another one has.

  Returns:
    [m, 5], in the detector's order; with eyes as the detections are.
  """
  columns = found.shape[1]
  kept: list[np.ndarray] = []
  for row in found[found[:, 4] >= min_score]:
    box = row[:4]
    others = np.reshape(kept, (-1, columns))[:, :4]
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(
      box[:2], others[:, :2]
    )
    shared = np.prod(np.maximum(sides, 0), axis=1)
    smaller = np.minimum(_area(box), _area(others))
    if not np.any(shared > _SAME_FACE * smaller):
      kept.append(row)
  return np.reshape(kept, (-1, columns)).astype(np.float32)


def _area(boxes: np.ndarray) -> np.ndarray:
  return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


class _Tracker:
  """The tracks of one scene."""

  def __init__(self, tracking: faces.Tracking, describe: Callable | None):
    self._tracking = tracking
    self._describe = describe
    self._live: list[Track] = []
    self.tracks: list[Track] = []

  def update(
    self, time: int, frame: np.ndarray, found: np.ndarray
  ) -> tuple[list[Track], list[Track]]:
    """Continues tracks with what is found [n, 5] in a frame, and begins some.

    Every box goes to one track at most, and every track takes one at most, so
    that together they overlap most with where the tracks should be.

    Returns:
      (tracks that were missed for the first time, tracks that begin).
    """
    overlaps = np.zeros((len(self._live), len(found)))
    for i, track in enumerate(self._live):
      overlaps[i] = np.maximum(
        faces.iou(track.predicted(time), found[:, :4]),
        # Somebody alone may also stop at once.
        faces.iou(track.found[-1], found[:, :4]) if len(self._live) == 1 else 0,
      )
    rows, columns = scipy.optimize.linear_sum_assignment(-overlaps)
    new = set(range(len(found)))
    missed = set(range(len(self._live)))
    for i, j in zip(rows, columns, strict=True):
      if overlaps[i, j] >= self._tracking.min_iou:
        track = self._live[i]
        new.discard(j)
        missed.discard(i)
        self._extend(track, time, frame, found[j])
    for i in missed:
      self._live[i].missed += 1
    lost = [t for t in self._live if t.missed == 1]
    begun = []
    self._live = [
      t for t in self._live if t.missed <= self._tracking.max_missed
    ]
    for j in sorted(new):
      track = Track([], [], [], np.zeros(0, np.float32))
      self._extend(track, time, frame, found[j])
      begun.append(track)
    self._live += begun
    self.tracks += begun
    return lost, begun

  def settle(
    self,
    lost: list[Track],
    begun: list[Track],
    between: Callable[[int], np.ndarray],
    times: range,
  ) -> None:
    """Moves tracks' ends to the frame, in those that were not looked at.

    Args:
      lost, begun: of `update`.
      between: what is found [n, 5] in one of those frames.
      times: their numbers, after the last look and before this one.
    """
    for track in lost:
      for time in times:
        row = self._same(track.predicted(time), between(time))
        if row is None:
          break
        track.add(time, row)
    for track in begun:
      for time in reversed(times):
        row = self._same(track.found[0], between(time))
        if row is None:
          break
        track.add(time, row, first=True)

  def _same(self, box, found) -> np.ndarray | None:
    """The row of `found` that is of the same face as a box, if there is one."""
    if not len(found):
      return None
    overlaps = faces.iou(box, found[:, :4])
    best = int(np.argmax(overlaps))
    return found[best] if overlaps[best] >= self._tracking.min_iou else None

  def _extend(self, track, time, frame, row):
    box = row[:4]
    if self._describe is not None:
      found = self._describe(frame, box)
      n = len(track.times)
      track.looks = found if not n else (n * track.looks + found) / (n + 1)
    track.add(time, row)
    track.missed = 0


def scenes(
  frames: Iterable[np.ndarray],
  detector: Detector,
  tracking: faces.Tracking = faces.Tracking(),  # noqa: B008 (frozen)
  cuts: Callable[[np.ndarray], bool] | None = None,
  describe: Callable | None = None,
  exact_ends: bool = False,
) -> Iterator[Scene]:
  """Follows all faces through a video, scene by scene.

  Args:
    frames: BGR uint8, decoded one after the other; two are kept, with
      `exact_ends` tracking.every_frames.
    detector: finds boxes in one frame.
    tracking: how.
    cuts: told every frame in turn, says which begin a new scene; None is a
      CutFinder of its own.
    describe: `looks`, where tracks are to be told apart by them.
    exact_ends: whether the detector also looks at the frames between two looks
      where a face comes or goes, so that tracks begin and end to the frame.

  Yields:
    The scenes, in order and without gaps; each when it has ended.
  """
  cuts = cuts or CutFinder()
  start, count, last_seen = 0, 0, -1
  tracker = _Tracker(tracking, describe)
  frame = None
  skipped: dict[int, np.ndarray] = {}  # Frames since the last look.

  def find(frame):
    return distinct(detector(frame), tracking.min_score)

  def look(time, frame):
    nonlocal last_seen
    last_seen = time
    lost, begun = tracker.update(time, frame, find(frame))
    skipped.pop(time, None)
    if skipped and (lost or begun):
      between = functools.cache(lambda time: find(skipped[time]))
      tracker.settle(lost, begun, between, range(min(skipped), time))
    skipped.clear()

  for count, new in enumerate(frames):
    if cuts(new) and frame is not None:
      # Up to its last frame: the end is not extrapolated.
      if last_seen < count - 1:
        look(count - 1, frame)
      yield Scene(start, count, tracker.tracks)
      start, tracker = count, _Tracker(tracking, describe)
      skipped.clear()
    if (count - start) % tracking.every_frames == 0:
      look(count, new)
    elif exact_ends:
      skipped[count] = new
    frame = new
  if frame is None:
    return
  if last_seen < count:
    look(count, frame)
  yield Scene(start, count + 1, tracker.tracks)


# --- Who is meant ---

WHO = ("largest", "central", "all")
# On GRID, looks of two moments of a clip have a cosine of 0.97 or more, of two
# clips of a person 0.94 in the mean (0.86 at least), of two people 0.76 to
# 0.93.
MIN_LIKENESS = 0.9


def choose(
  scene: Scene,
  who: str | int,
  height: int,
  width: int,
  wanted: np.ndarray | None = None,
  min_likeness: float = MIN_LIKENESS,
) -> list[Track]:
  """Chooses whose lips are to move in a scene.

  One person is chosen, or all.  A person may have several tracks, where it was
  lost in between: of the others, those in turn that were never seen beside one
  that is already chosen, for who is seen beside a person is somebody else.

  Args:
    scene: with its tracks.
    who: "largest" by area and time, "central" by nearness to the middle and
      time, "all", or n: the n-th person from the left, from 1 on.
    height, width: of the frames, pixels.
    wanted: what the wanted person looks like (`looks`); in place of `who`.
    min_likeness: tracks whose looks have a smaller cosine to `wanted` are
      somebody else's.

  Returns:
    Tracks; but for "all", none overlap in time.
  """
  # A detection that no other confirms is hardly a face.
  lasting = [
    t
    for t in scene.tracks
    if len(t.times) > 1 or t.stop - t.start == scene.stop - scene.start
  ]
  tracks = lasting or scene.tracks
  if wanted is not None:
    likeness = [_likeness(t.looks, wanted) for t in tracks]
    like = [
      (value, t)
      for value, t in zip(likeness, tracks, strict=True)
      if value >= min_likeness
    ]
    return _one_person([t for _, t in sorted(like, key=lambda x: -x[0])])
  if who == "all":
    return tracks
  if who == "largest":
    ranked = sorted(tracks, key=lambda t: -_area(t.boxes()).sum())
    return _one_person(ranked)
  if who == "central":
    middle = np.array([width, height]) / 2

    def nearness(track):
      centres = track.boxes().reshape(-1, 2, 2).mean(axis=1)
      away = np.linalg.norm(centres - middle, axis=1) / np.linalg.norm(middle)
      return (1 - away).sum()

    return _one_person(sorted(tracks, key=nearness, reverse=True))
  people = _people(tracks)
  return people[who - 1] if who <= len(people) else []


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
  return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-9))


def _one_person(ranked: list[Track]) -> list[Track]:
  """The first track, and those after it that overlap with none before."""
  chosen: list[Track] = []
  # Who was seen beside the first is never it, even where the first is lost.
  for track in ranked:
    if not any(track.overlaps(t) for t in chosen):
      chosen.append(track)
  return chosen


def _people(tracks: list[Track]) -> list[list[Track]]:
  """Groups tracks into people, from left to right.

  A track belongs to the person who was last seen nearest to where it begins,
  not more than a face's width away, and not at the same time.
  """
  people: list[list[Track]] = []
  for track in sorted(tracks, key=lambda t: t.start):
    box = track.found[0]
    best, nearest = None, box[2] - box[0]
    for person in people:
      away = np.abs(person[-1].found[-1] - box)[[0, 2]].mean()
      if not person[-1].overlaps(track) and away <= nearest:
        best, nearest = person, away
    if best is None:
      people.append([track])
    else:
      best.append(track)
  return sorted(
    people, key=lambda p: np.mean([t.boxes()[:, [0, 2]].mean() for t in p])
  )
