"""Tracking with scripted detectors, smoothing, crops and pasting."""

import cv2
import numpy as np
import pytest

from w2l_jax import faces

BOX = np.array([20.0, 30.0, 60.0, 80.0])
FAR = np.array([200.0, 10.0, 230.0, 40.0])


class Scripted:
  """A detector that says what a script has for the frame's number."""

  def __init__(self, script):
    self.script = script
    self.calls = []

  def __call__(self, frame):
    number = int(frame[0, 0, 0])
    self.calls.append(number)
    found = self.script(number)
    rows = [(*box, score) for box, score in found]
    return np.array(rows, np.float32).reshape(-1, 5)


def frames(count):
  for i in range(count):
    yield np.full((4, 6, 3), i, np.uint8)


def track(count, script, **tracking):
  detector = Scripted(script)
  boxes = faces.track_face(frames(count), detector, faces.Tracking(**tracking))
  assert boxes.shape == (count, 4)
  assert boxes.dtype == np.float32
  # A box is whole or missing.
  missing = np.isnan(boxes)
  assert (missing.all(axis=1) == missing.any(axis=1)).all()
  return boxes, detector.calls


def has_box(boxes) -> list[int]:
  return np.flatnonzero(np.isfinite(boxes[:, 0])).tolist()


# Tracking.


@pytest.mark.parametrize("every", [1, 3, 5, 50])
@pytest.mark.parametrize("count", [1, 2, 11, 23])
def test_a_face_at_rest(count, every):
  boxes, calls = track(count, lambda i: [(BOX, 0.99)], every_frames=every)
  assert (boxes == BOX).all()
  # The detector sees every so many frames, and the last, each once.
  assert calls == sorted({*range(0, count, every), count - 1})


@pytest.mark.parametrize("every", [1, 4, 5])
def test_linear_movement_is_interpolated_exactly(every):
  speed = np.array([1.5, -0.5, 1.0, 0.25])
  boxes, _ = track(23, lambda i: [(BOX + i * speed, 0.99)], every_frames=every)
  expected = BOX + np.arange(23)[:, None] * speed
  np.testing.assert_allclose(boxes, expected, atol=1e-4)


@pytest.mark.parametrize(("missed", "kept"), [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize("every", [1, 5])
def test_gaps(missed, kept, every):
  """Detections fail from the third on, `missed` times in a row."""
  gone = {every * k for k in range(3, 3 + missed)}
  count = every * (8 + missed) + 1
  boxes, _ = track(
    count,
    lambda i: [] if i in gone else [(BOX + 0.1 * i, 0.99)],
    every_frames=every,
    max_missed=2,
  )
  before, after = 2 * every, (3 + missed) * every
  expected = BOX + 0.1 * np.arange(count)[:, None]
  if not kept:
    expected[before + 1 : after] = np.nan
  np.testing.assert_allclose(boxes, expected, atol=1e-4)


def test_misses_are_counted_anew_after_a_hit():
  seen = {0, 3, 6, 9}
  boxes, _ = track(
    10,
    lambda i: [(BOX, 0.99)] if i in seen else [],
    every_frames=1,
    max_missed=2,
  )
  assert (boxes == BOX).all()
  boxes, _ = track(
    10,
    lambda i: [(BOX, 0.99)] if i in seen else [],
    every_frames=1,
    max_missed=1,
  )
  assert has_box(boxes) == [0, 3, 6, 9]


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("cut", [10, 13, 20])
def test_a_cut_is_a_break(every, cut):
  """From frame `cut` on another face elsewhere: two stretches, no mixing."""
  boxes, calls = track(
    31, lambda i: [(BOX if i < cut else FAR, 0.99)], every_frames=every
  )
  last = max(i for i in calls if i < cut)
  first = min(i for i in calls if i >= cut)
  assert (boxes[: last + 1] == BOX).all()
  assert (boxes[first + 1 :] == FAR).all()
  # At least one frame, at most what lies between the detections.
  broken = sorted(set(range(31)) - set(has_box(boxes)))
  assert 1 <= len(broken) <= max(1, every - 1)
  assert last < broken[0]
  assert broken[-1] <= first
  assert len(faces.runs(boxes)) == 2
  smooth = faces.smooth_boxes(boxes, 11)
  np.testing.assert_array_equal(smooth, boxes)


def test_a_cut_before_the_last_frame():
  boxes, _ = track(12, lambda i: [(BOX if i < 11 else FAR, 0.99)])
  assert (boxes[:11] == BOX).all()
  assert not (boxes[11] == BOX).all()
  assert len(faces.runs(np.concatenate([boxes, boxes[-1:]]))) <= 2


def test_flicker_between_two_places_never_joins_them():
  boxes, _ = track(9, lambda i: [(BOX if i % 2 else FAR, 0.99)], every_frames=1)
  for run in faces.runs(boxes):
    part = boxes[run]
    assert (part == part[0]).all()


def test_a_face_that_comes_late_and_goes():
  boxes, _ = track(40, lambda i: [(BOX, 0.99)] if 8 <= i < 27 else [])
  # Every fifth frame is looked at: 10 is the first, 25 the last that has one.
  assert has_box(boxes) == list(range(10, 26))
  assert (boxes[10:26] == BOX).all()


def test_a_face_in_the_last_frame_only():
  boxes, _ = track(14, lambda i: [(BOX, 0.99)] if i == 13 else [])
  assert has_box(boxes) == [13]


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("large_first", [True, False])
def test_the_largest_of_two_faces_is_followed(every, large_first):
  """And goes on being followed, though the other one grows past it."""

  def script(i):
    small = np.array([150.0, 20, 170, 45]) + [-i, -i / 2, i, 2.0 * i]
    # The smaller one is the surer.
    both = [(BOX + i / 4, 0.95), (small, 0.99)]
    return both if large_first else both[::-1]

  boxes, _ = track(26, script, every_frames=every)
  expected = BOX + np.arange(26)[:, None] / 4
  np.testing.assert_allclose(boxes, expected, atol=1e-4)


def test_the_better_of_two_overlapping_boxes_is_taken():
  def script(i):
    if i == 0:
      return [(BOX, 0.99)]
    # A larger box that overlaps less.
    return [(BOX + [-10, -10, 10, 10], 0.99), (BOX + 1, 0.95)]

  boxes, _ = track(2, script, every_frames=1)
  np.testing.assert_array_equal(boxes[1], BOX + 1)


def test_a_little_overlap_is_another_face():
  # Half of each box is shared: a third of their union.
  moved = BOX + [20.0, 0, 20, 0]
  for min_iou, stretches in ((0.3, 1), (0.35, 2)):
    boxes, _ = track(
      20,
      lambda i: [(BOX if i < 10 else moved, 0.99)],
      every_frames=1,
      min_iou=min_iou,
    )
    assert len(faces.runs(boxes)) == stretches


def test_unsure_detections_are_ignored():
  def script(i):
    return [(FAR * 2, 0.5), (BOX, 0.9001 if i < 10 else 0.85)]

  boxes, _ = track(30, script, min_score=0.9)
  assert has_box(boxes) == list(range(6))
  assert (boxes[:6] == BOX).all()


@pytest.mark.parametrize("every", [1, 5])
def test_no_face_at_all(every):
  boxes, calls = track(13, lambda i: [], every_frames=every)
  assert np.isnan(boxes).all()
  assert calls[-1] == 12
  assert faces.runs(boxes) == []
  assert np.isnan(faces.smooth_boxes(boxes, 11)).all()


def test_an_empty_video():
  boxes, calls = track(0, lambda i: [(BOX, 0.99)])
  assert calls == []
  assert faces.runs(boxes) == []
  assert faces.smooth_boxes(boxes, 11).shape == (0, 4)


def test_iou():
  a = np.array([0.0, 0, 10, 10])
  others = np.array(
    [[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [40, 40, 50, 50],
     [2, 2, 4, 4]]
  )  # fmt: skip
  np.testing.assert_allclose(faces.iou(a, others), [1, 50 / 150, 0, 0, 4 / 100])


# Stretches and smoothing.


@pytest.mark.parametrize(
  ("valid", "expected"),
  [
    ("", []),
    ("....", []),
    ("xxxx", [(0, 4)]),
    ("x", [(0, 1)]),
    (".x.xx..xxx", [(1, 2), (3, 5), (7, 10)]),
    ("xx..x.", [(0, 2), (4, 5)]),
  ],
)
def test_runs(valid, expected):
  boxes = np.full((len(valid), 4), np.nan, np.float32)
  for i, c in enumerate(valid):
    if c == "x":
      boxes[i] = BOX
  assert faces.runs(boxes) == [slice(*pair) for pair in expected]


def smoothed(boxes, frames):
  """Averages over as many frames on both sides, at most frames // 2."""
  out = np.full(boxes.shape, np.nan)
  for i in range(len(boxes)):
    if np.isnan(boxes[i, 0]):
      continue
    reach = 0
    while (
      reach < frames // 2
      and i - reach - 1 >= 0
      and i + reach + 1 < len(boxes)
      and np.isfinite(boxes[i - reach - 1 : i + reach + 2, 0]).all()
    ):
      reach += 1
    out[i] = boxes[i - reach : i + reach + 1].astype(np.float64).mean(axis=0)
  return out


@pytest.mark.parametrize("frames", [1, 3, 5, 11, 99])
def test_smooth_boxes(frames):
  rng = np.random.default_rng(0)
  boxes = (BOX + rng.normal(0, 9, (60, 4))).astype(np.float32)
  boxes[[0, 1, 13, 25, 26, 28, 59]] = np.nan
  before = boxes.copy()
  got = faces.smooth_boxes(boxes, frames)
  np.testing.assert_array_equal(boxes, before)
  assert got.shape == boxes.shape
  np.testing.assert_allclose(got, smoothed(boxes, frames), atol=1e-4)
  if frames == 1:
    np.testing.assert_allclose(got, boxes, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_boxes_at_rest_and_in_steady_movement_stay(count):
  still = np.repeat(BOX[None].astype(np.float32), count, axis=0)
  np.testing.assert_array_equal(faces.smooth_boxes(still, 11), still)
  moving = (BOX + np.arange(count)[:, None] * [1, 2, 0.5, -1]).astype(
    np.float32
  )
  np.testing.assert_allclose(faces.smooth_boxes(moving, 11), moving, atol=1e-4)


def test_pads_are_top_bottom_left_right():
  boxes = np.array([[10, 20, 30, 40], [1, 2, 3, 4]], np.float32)
  got = faces.pad_boxes(boxes, (1, 2, 4, 8))
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, [[6, 19, 38, 42], [-3, 1, 11, 6]])


# Crops.


@pytest.fixture(scope="module")
def picture():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)


CROPS = [
  # Box, then rows and columns of the picture of 90 x 120.
  ((10, 20, 70, 85), (20, 85, 10, 70)),
  # Cut, not rounded, as the original's int() does.
  ((10.9, 20.9, 70.9, 85.9), (20, 85, 10, 70)),
  ((0, 0, 120, 90), (0, 90, 0, 120)),
  ((-15.5, -0.7, 30, 40), (0, 40, 0, 30)),
  ((100, 80, 300, 200), (80, 90, 100, 120)),
  ((-50, -50, 500, 500), (0, 90, 0, 120)),
  # Less than a pixel, or none: one pixel remains.
  ((50.2, 60.2, 50.4, 60.4), (60, 61, 50, 51)),
  ((200, 200, 300, 300), (89, 90, 119, 120)),
  ((-30, -30, -10, -10), (0, 1, 0, 1)),
]


@pytest.mark.parametrize(("box", "expected"), CROPS)
def test_crop(picture, box, expected):
  box = np.array(box, np.float32)
  assert faces.whole_pixels(box, 90, 120) == expected
  y1, y2, x1, x2 = expected
  got = faces.crop(picture, box, 48)
  assert got.shape == (48, 48, 3)
  np.testing.assert_array_equal(
    got, cv2.resize(picture[y1:y2, x1:x2], (48, 48))
  )


def test_a_crop_of_its_own_size_is_the_slice(picture):
  got = faces.crop(picture, np.array([30, 25, 78, 73], np.float32), 48)
  np.testing.assert_array_equal(got, picture[25:73, 30:78])


@pytest.mark.parametrize(("box", "pixels"), CROPS)
@pytest.mark.parametrize("size", [24, 48])
def test_exact_crops_of_whole_pixels_are_crops(picture, box, pixels, size):
  """To the resolution of OpenCV's tables: a 32nd of a pixel."""
  y1, y2, x1, x2 = pixels
  if min(y2 - y1, x2 - x1) == 1:
    return  # What lies around it counts where parts of pixels do.
  whole = np.array([x1, y1, x2, y2], np.float32)
  smooth = cv2.GaussianBlur(picture, (0, 0), 3)
  found = faces.crop_exact(smooth, whole, size).astype(int)
  expected = faces.crop(smooth, whole, size)
  assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.37, 0.5, 0.93])
def test_exact_crops_move_by_parts_of_pixels(shift):
  """On a slope a crop's levels are its box's place."""
  y, x = np.mgrid[:90, :120]
  frame = np.stack([2 * x, 2 * y, x + y], axis=2).astype(np.uint8)
  box = np.array([30 + shift, 20 + shift, 78 + shift, 68 + shift])
  found = faces.crop_exact(frame, box, 24).astype(float)
  i = np.arange(24)
  # Pixel i covers two of the frame's; their mean is half a level on.
  expected = 2 * (30 + shift + 2 * (i + 0.5) - 0.5)
  assert np.abs(found[:, :, 0] - expected[None]).max() <= 0.6
  expected = 2 * (20 + shift + 2 * (i + 0.5) - 0.5)
  assert np.abs(found[:, :, 1] - expected[:, None]).max() <= 0.6


# Pasting.


def test_a_hard_paste_is_the_resized_face():
  """As the original's inference.py: nothing outside, no blending inside."""
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (40, 50, 3), np.uint8)
  face = rng.integers(0, 256, (24, 24, 3), np.uint8)
  box = np.array([10.9, 5.2, 41.7, 30.0])
  out = faces.paste(frame, face, box)
  np.testing.assert_array_equal(out[5:30, 10:41], cv2.resize(face, (31, 25)))
  out[5:30, 10:41] = frame[5:30, 10:41]
  np.testing.assert_array_equal(out, frame)


@pytest.mark.parametrize("degrees", [-30, 4, 20, 90])
def test_a_turned_crop_is_the_crop_of_the_picture_turned_back(degrees):
  """Whatever the way round; outside the frame its border goes on."""
  rng = np.random.default_rng(0)
  small = rng.integers(0, 256, (12, 16, 3), np.uint8)
  picture = cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC)
  box, middle = np.array([110.5, 60.25, 190.5, 160.75]), (150.0, 110.0)
  # The same face, its head turned clockwise on the screen.
  turn = cv2.getRotationMatrix2D(middle, -degrees, 1)
  turned = cv2.warpAffine(picture, turn, (320, 240), flags=cv2.INTER_CUBIC)
  expected = faces.crop_exact(picture, box, 64).astype(int)
  found = faces.crop_exact(turned, box, 64, np.radians(degrees)).astype(int)
  assert np.abs(found - expected).mean() < 1.5
  if degrees != 4:
    upright = faces.crop_exact(turned, box, 64).astype(int)
    assert np.abs(upright - expected).mean() > 15


def test_to_frame_maps_corners_and_middle():
  """By hand: a quarter turn clockwise of a box of 4 x 2."""
  matrix = faces.to_frame((10.0, 20.0, 14.0, 22.0), (8, 4), np.pi / 2)
  # The crop's middle, between its pixels, is the box's, between the frame's.
  np.testing.assert_allclose(matrix @ [3.5, 1.5, 1], [11.5, 20.5], atol=1e-12)
  # Its right edge's middle points down.
  np.testing.assert_allclose(matrix @ [7.5, 1.5, 1], [11.5, 22.5], atol=1e-12)
  # Its left upper corner is at the right, above.
  np.testing.assert_allclose(matrix @ [-0.5, -0.5, 1], [12.5, 18.5], atol=1e-12)
