"""Which faces lip-syncing would find, and whose lips would move; as a picture.

Looks at the beginning only, so it answers at once.  What the words mean is in
tracking.py; here they are shown before anything is made.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import cv2
import numpy as np

from w2l_jax import detectors, sources, tracking
from w2l_jax.sources import InferenceError, Pictures

# Frames looked at together, and at most: half a minute of 25 a second.
_FRAMES, _MOST_FRAMES = 50, 750
# Of the drawing, BGR.
_CHOSEN, _OTHER = (80, 200, 60), (150, 150, 150)


@dataclasses.dataclass(frozen=True)
class FacePreview:
  """What was found.

  Attributes:
    frame: BGR uint8 [H, W, 3].
    picture: the same with numbered boxes; those of the faces that are meant are
      green.
    boxes: [n, 4] left, top, right, bottom in that frame, from left to right.
    chosen: the numbers of the faces that are meant, from 1 on.
    seconds: where in the video the frame is.
  """

  frame: np.ndarray
  picture: np.ndarray
  boxes: np.ndarray
  chosen: tuple[int, ...]
  seconds: float

  def __str__(self):
    """One sentence."""
    count = len(self.boxes)
    found = "one face" if count == 1 else f"{count} faces, from left to right"
    if not self.chosen:
      return f"{found}; none of them is meant"
    who = ", ".join(map(str, self.chosen))
    return f"{found}; {'lips that move' if count > 1 else 'its lips move'}" + (
      f": {who}" if count > 1 else ""
    )


def preview(
  face: str | np.ndarray,
  who: str | int = "largest",
  detector: str = "mtcnn",
  edit: sources.Edit = sources.Edit(),  # noqa: B008 (frozen)
) -> FacePreview:
  """Finds the faces of the first two seconds that have any.

  Args:
    face: a video or a photo, or BGR uint8 arrays.
    who: largest, central, all, or n, the n-th from the left.
    detector: a name of detectors.DETECTORS.
    edit: what is done to every frame first.

  Raises:
    InferenceError: if there is none in the first half minute.
    MediaError: naming the file, if it is none.
  """
  pictures = sources.open_pictures(face, edit=edit)
  find = detectors.make(detector)
  seen = 0
  while seen < _MOST_FRAMES:
    part = _Counted(itertools.islice(pictures.frames(seen), _FRAMES))
    for scene in tracking.scenes(part, find):
      if scene.tracks:
        return _drawn(pictures, scene, seen, who)
    seen += part.count
    if part.count < _FRAMES:
      break
  raise InferenceError(
    f"{pictures.name}: no face found in {seen} frames; expected one that looks "
    "towards the camera; another --detector may find it"
  )


class _Counted:
  """Counts what it yields."""

  def __init__(self, items: Iterable):
    self._items = items
    self.count = 0

  def __iter__(self):
    for item in self._items:
      self.count += 1
      yield item


def _drawn(
  pictures: Pictures, scene: tracking.Scene, first: int, who: str | int
) -> FacePreview:
  """Draws the moment at which most people of a scene are seen."""
  height, width = next(pictures.frames(first)).shape[:2]
  people = []
  while person := tracking.choose(scene, len(people) + 1, height, width):
    people.append(person)
  meant = tracking.choose(scene, who, height, width)

  def at(time):
    """(number, track) of everybody who is seen then."""
    return [
      (number, track)
      for number, person in enumerate(people, 1)
      for track in person
      if track.start <= time < track.stop
    ]

  time = max(range(scene.start, scene.stop), key=lambda t: len(at(t)))
  frame = next(pictures.frames(first + time))
  picture = frame.copy()
  boxes, chosen = [], []
  for number, track in at(time):
    box = track.boxes()[time - track.start]
    boxes.append(box)
    if any(track is t for t in meant):
      chosen.append(number)
    _draw(picture, box, number, _CHOSEN if number in chosen else _OTHER)
  return FacePreview(
    frame,
    picture,
    np.array(boxes, np.float32),
    tuple(chosen),
    (first + time) / float(pictures.fps),
  )


def _draw(picture: np.ndarray, box: np.ndarray, number: int, colour) -> None:
  """Draws a box with its number in its upper left corner."""
  left, top, right, bottom = (int(round(x)) for x in box)
  line = max(2, round(min(picture.shape[:2]) / 150))
  cv2.rectangle(picture, (left, top), (right, bottom), colour, line)
  scale = max(0.5, min(picture.shape[:2]) / 500)
  (w, h), _ = cv2.getTextSize(str(number), 0, scale, line)
  cv2.rectangle(
    picture, (left, top), (left + w + 2 * line, top + h + 3 * line), colour, -1
  )
  cv2.putText(
    picture,
    str(number),
    (left + line, top + h + line),
    0,
    scale,
    (255, 255, 255),
    line,
    cv2.LINE_AA,
  )
