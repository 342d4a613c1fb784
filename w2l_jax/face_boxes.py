"""The first pass over a video: where faces are to be drawn.

Tracking and choosing are in tracking.py, the original's boxes in original.py;
here they become boxes for every frame.
"""

import contextlib
import dataclasses
import itertools

import numpy as np

from w2l_jax import (
  detectors,
  faces,
  looks,
  original,
  pipeline,
  progress_bars,
  tracking,
  video,
)
from w2l_jax.lip_sync_options import Options
from w2l_jax.sources import InferenceError, Pictures

# Decoded frames that may wait for the detector.
_FRAMES_WAITING = 4


@dataclasses.dataclass
class Boxes:
  """Where faces are drawn.

  Attributes:
    boxes: [T, P, 4] float32 of up to P faces in each source frame, or NaN.
    tracks: [T, P] int, which track each is of.
    angles: [T, P] float32 radians by which each box is turned; 0 but for
      aligned faces.
    scenes: how many there are.
  """

  boxes: np.ndarray
  tracks: np.ndarray
  angles: np.ndarray
  scenes: int = 1


def find(
  pictures: Pictures,
  needed: int | None,
  options: Options,
  preparation: dict,
  clock: pipeline.Clock,
  progress: progress_bars.Progress = False,
) -> Boxes:
  """Finds the faces that are to be drawn.

  Args:
    pictures: the video or photo.
    needed: how many frames are looked at, at most; None: all.
    options: whose faces, and how.
    preparation: of the checkpoint's config: detector, tracking and crop rule.
    clock: times "decode", "cuts" and "detect".
    progress: whether a bar is shown, or who is told.

  Raises:
    InferenceError: where there is no face at all; by flag where one is missing.
  """
  frames = pipeline.in_thread(
    clock.items("decode", itertools.islice(pictures.frames(0), needed)),
    _FRAMES_WAITING,
  )
  total = 1 if pictures.still else needed
  with (
    contextlib.closing(frames),
    progress_bars.shown(frames, progress, "finding faces", total) as shown,
  ):
    if options.box is not None:
      return _fixed(shown, pictures.name, options.box)
    find_in_one = _detector(
      options.detector or preparation["detector"],
      options.align_eyes or _photo_of(options) is not None,
    )

    def detector(frame):
      with clock("detect"):
        return find_in_one(frame)

    if options.compat:
      return _original(shown, pictures.name, detector, options)
    how = faces.Tracking(**preparation["tracking"])
    found = _tracked(
      shown, pictures.name, detector, how, options, pictures.fps, clock
    )
    _check(found.boxes, pictures, options.no_face)
    found.boxes = faces.cut_boxes(found.boxes, preparation["crop_rule"])
    found.boxes = faces.pad_boxes(found.boxes, options.pads)
    if np.any(found.boxes[..., 2:] - found.boxes[..., :2] < 1):
      raise InferenceError(
        f"pads {options.pads} (top, bottom, left, right) leave nothing of a "
        "face's box"
      )
    return found


def _detector(name: str, eyes: bool) -> detectors.Detector:
  if name.startswith("boxes:"):  # Training's were given; boxes mean the same.
    name = "mtcnn"
  try:
    return detectors.make(name, eyes)
  except ValueError as e:
    raise InferenceError(str(e)) from e


def _fixed(frames, name, box) -> Boxes:
  top, bottom, left, right = box
  count = 0
  for frame in frames:
    height, width = frame.shape[:2]
    count += 1
  if bottom > height or right > width:
    raise InferenceError(
      f"box {box} (top, bottom, left, right) is not within {name}'s frames of "
      f"{width} x {height}"
    )
  boxes = np.array([left, top, right, bottom], np.float32)
  return _one_slot(np.broadcast_to(boxes, (count, 1, 4)))


def _one_slot(boxes: np.ndarray) -> Boxes:
  """Boxes [T, 1, 4] of one track, upright."""
  shape = boxes.shape[:2]
  return Boxes(boxes, np.zeros(shape, int), np.zeros(shape, np.float32))


def _original(frames, name, detector, options) -> Boxes:
  try:
    boxes = original.boxes(frames, detector, options.pads)
  except original.NoFace as e:
    raise InferenceError(
      f"{name}: no face found in frame {e.args[0]}; with compat every frame "
      "must have one, as in the original"
    ) from e
  if options.smooth:
    boxes = original.smooth(boxes)
  return _one_slot(boxes[:, None].astype(np.float32))


def _tracked(frames, name, detector, how, options, fps, clock) -> Boxes:
  who, photo = options.faces, _photo_of(options)
  wanted = None if photo is None else _looks_of(photo, detector)
  shape = []

  def seen():
    for frame in frames:
      shape[:] = frame.shape[:2]
      yield frame

  cuts = tracking.CutFinder()

  def finds_cut(frame):
    with clock("cuts"):
      return cuts(frame)

  hold = round(options.hold_seconds * fps)
  stretches, count, scenes, most = [], 0, 0, 0
  for scene in tracking.scenes(
    seen(),
    detector,
    how,
    finds_cut,
    describe=None if photo is None else _looks,
    exact_ends=True,
  ):
    chosen = tracking.choose(scene, who, *shape, wanted)
    most = max(most, len(scene.tracks))
    for track in sorted(chosen, key=lambda t: t.start):
      # The angle is a fifth column: averaged and held as the box is.
      angles = track.angles() * options.align_eyes
      boxes = np.column_stack([track.boxes(), angles])
      if options.smooth:
        boxes = faces.smooth_boxes(boxes, how.smooth_frames)
      if options.no_face == "hold":
        later = [t.start for t in chosen if t.start >= track.stop]
        until = min([track.stop + hold, scene.stop, *later])
        held = np.repeat(boxes[-1:], until - track.stop, axis=0)
        boxes = np.concatenate([boxes, held])
      stretches.append((track.start, boxes))
    count, scenes = scene.stop, scenes + 1
  if most and not stretches:
    raise InferenceError(
      f"{name}: faces were found, up to {most} in a scene, but none that "
      f"faces={who} means"
      + (
        "; a photo with the same pose and expression may do better, or a number"
        if photo
        else ""
      )
    )
  rows, tracks = _in_slots(stretches, count)
  return Boxes(rows[..., :4], tracks, rows[..., 4], scenes)


def _check(boxes: np.ndarray, pictures: Pictures, no_face: str) -> None:
  """Raises where there is no face at all, or by flag where one is missing."""
  missing = np.flatnonzero(~np.isfinite(boxes[..., 0]).any(axis=1))
  if len(missing) == len(boxes):
    raise InferenceError(
      f"{pictures.name}: no face found in {len(boxes)} frames; expected one "
      "that looks towards the camera; another --detector may find it, or say "
      "where it is with --box"
    )
  if no_face == "error" and len(missing):
    raise InferenceError(
      f"{pictures.name}: no face found in {len(missing)} of {len(boxes)} "
      f"frames, the first at {missing[0] / float(pictures.fps):.2f} s; cut "
      "them out, or let them pass with no_face=pass"
    )


def _in_slots(
  stretches: list[tuple[int, np.ndarray]], count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Lays stretches of boxes side by side.

  Args:
    stretches: (first frame, [n, 5] boxes and angles), by first frame.
    count: T.

  Returns:
    ([T, P, 5] float32 of them or NaN, [T, P] int numbers of the stretches).
  """
  ends: list[int] = []  # Of the last stretch in each slot.
  slots = []
  for start, boxes in stretches:
    free = [s for s, end in enumerate(ends) if end <= start]
    slot = free[0] if free else len(ends)
    ends[slot : slot + 1] = [start + len(boxes)]
    slots.append(slot)
  out = np.full((count, max(1, len(ends)), 5), np.nan, np.float32)
  tracks = np.full(out.shape[:2], -1)
  for number, (slot, (start, boxes)) in enumerate(
    zip(slots, stretches, strict=True)
  ):
    out[start : start + len(boxes), slot] = boxes
    tracks[start : start + len(boxes), slot] = number
  return out, tracks


def _photo_of(options: Options) -> str | None:
  """The photo of who is meant, where faces is one."""
  who = options.faces
  return None if isinstance(who, int) or who in tracking.WHO else who


def _looks(frame: np.ndarray, row: np.ndarray) -> np.ndarray:
  return looks.looks(frame, row[5:9])


def _looks_of(path: str, detector: detectors.Detector) -> np.ndarray:
  """What the person on a photo looks like."""
  photo = video.read_image(path)
  if photo is None:
    raise InferenceError(
      f"{path}: not a photo; faces takes a photo of the person that is to speak"
    )
  found = detector(photo)
  if not len(found):
    raise InferenceError(
      f"{path}: no face found; expected a photo of the person that is to speak"
    )
  areas = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
  return _looks(photo, found[np.argmax(areas)])
