"""Scenes, tracks and who is chosen, with scripted detectors and real clips."""

import itertools
import weakref

import cv2
import numpy as np
import pytest
from conftest import face_picture, talking_frames

from w2l_jax import detectors, faces, tracking, video

BOX = np.array([20.0, 30, 60, 80])
FAR = np.array([200.0, 10, 230, 40])


def run(count, script, cuts=(), exact_ends=False, **how):
  """Scenes of scripted detections; a frame's number is its first pixel."""
  calls = []

  def detector(frame):
    number = int(frame[0, 0, 0])
    calls.append(number)
    rows = [(*box, score) for box, score in script(number)]
    return np.array(rows, np.float32).reshape(-1, 5)

  frames = (np.full((4, 6, 3), i, np.uint8) for i in range(count))
  scenes = list(
    tracking.scenes(
      frames,
      detector,
      faces.Tracking(**how),
      cuts=lambda frame: int(frame[0, 0, 0]) in cuts,
      exact_ends=exact_ends,
    )
  )
  # Scenes follow each other without gaps, and tracks lie within theirs.
  assert [s.start for s in scenes[1:]] == [s.stop for s in scenes[:-1]]
  if scenes:
    assert scenes[0].start == 0 and scenes[-1].stop == count
  for scene in scenes:
    for track in scene.tracks:
      assert scene.start <= track.start < track.stop <= scene.stop
      assert track.boxes().shape == (track.stop - track.start, 4)
      assert track.boxes().dtype == np.float32
  return scenes, calls


def seen(track):
  return track.start, track.stop


# Tracks.


@pytest.mark.parametrize("every", [1, 3, 5, 50])
@pytest.mark.parametrize("count", [1, 2, 11, 23])
def test_one_face_as_data_preparation_sees_it(count, every):
  """The same frames looked at, the same boxes."""
  speed = np.array([1.5, -0.5, 1.0, 0.25])

  def script(i):
    return [] if i in (5, 10) else [(BOX + i * speed, 0.99)]

  scenes, calls = run(count, script, every_frames=every)
  frames = (np.full((4, 6, 3), i, np.uint8) for i in range(count))
  detector = lambda f: np.array(  # noqa: E731
    [[*b, s] for b, s in script(int(f[0, 0, 0]))], np.float32
  ).reshape(-1, 5)
  expected = faces.track_face(
    frames, detector, faces.Tracking(every_frames=every)
  )
  assert calls == sorted({*range(0, count, every), count - 1})
  found = np.full((count, 4), np.nan, np.float32)
  for track in scenes[0].tracks:
    found[track.start : track.stop] = track.boxes()
  np.testing.assert_array_equal(found, expected)


def test_empty():
  assert run(0, lambda i: []) == ([], [])


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("cut", [1, 10, 13, 20, 30])
def test_a_cut_ends_tracks_to_the_frame(every, cut):
  """Even where the next face is in the same place."""
  scenes, _ = run(31, lambda i: [(BOX, 0.99)], cuts={cut}, every_frames=every)
  assert [(s.start, s.stop) for s in scenes] == [(0, cut), (cut, 31)]
  assert [[seen(t) for t in s.tracks] for s in scenes] == [
    [(0, cut)],
    [(cut, 31)],
  ]


@pytest.mark.parametrize("every", [2, 3, 5])
@pytest.mark.parametrize(("first", "last"), [(6, 31), (10, 30), (13, 14)])
def test_ends_to_the_frame(every, first, last):
  """A face comes and goes between looks, beside somebody who stays."""

  def script(i):
    here = [(BOX + 0.2 * i, 0.99)] if first <= i <= last else []
    return here + [(FAR, 0.98)]

  scenes, calls = run(40, script, every_frames=every, exact_ends=True)
  tracks = scenes[0].tracks
  looked = [i for i in range(0, 40, every) if first <= i <= last]
  assert len(tracks) == (2 if looked else 1)
  assert (tracks[0].boxes() == FAR).all() and seen(tracks[0]) == (0, 40)
  if looked:
    assert seen(tracks[1]) == (first, last + 1)
    np.testing.assert_allclose(
      tracks[1].boxes(),
      BOX + 0.2 * np.arange(first, last + 1)[:, None],
      atol=1e-4,
    )
  # Nothing is looked at twice.
  assert len(calls) == len(set(calls))


def test_two_people_who_cross():
  """Each keeps its track, though their boxes meet in the middle."""

  def script(i):
    x = 4.0 * i
    both = [(x + 10, 40.0), (210 - x, 44.0)]
    if i % 2:
      both.reverse()
    return [((left, y, left + 40, y + 50), 0.99) for left, y in both]

  scenes, _ = run(50, script, every_frames=5)
  tracks = scenes[0].tracks
  assert len(tracks) == 2
  for track, y, speed in zip(tracks, (40, 44), (4, -4), strict=True):
    assert seen(track) == (0, 50)
    boxes = track.boxes()
    np.testing.assert_allclose(boxes[:, 1], y)
    np.testing.assert_allclose(np.diff(boxes[:, 0]), speed, atol=1e-3)


def test_the_one_who_leaves_does_not_become_the_other():
  scenes, _ = run(
    60, lambda i: [(BOX, 0.99)] * (i < 30) + [(FAR, 0.95)], every_frames=5
  )
  tracks = scenes[0].tracks
  assert [seen(t) for t in tracks] == [(0, 26), (0, 60)]
  assert (tracks[0].boxes() == BOX).all() and (tracks[1].boxes() == FAR).all()


@pytest.mark.parametrize(("missed", "tracks"), [(1, 1), (2, 1), (3, 2)])
def test_gaps(missed, tracks):
  gone = {15 + 5 * k for k in range(missed)}
  scenes, _ = run(
    61,
    # Somebody else is there all the time.
    lambda i: [(FAR, 0.99)] + [(BOX + 0.1 * i, 0.99)] * (i not in gone),
    max_missed=2,
  )
  mine = [t for t in scenes[0].tracks if t.found[0][0] < 100]
  assert len(mine) == tracks
  for track in mine:
    expected = BOX + 0.1 * np.arange(track.start, track.stop)[:, None]
    np.testing.assert_allclose(track.boxes(), expected, atol=1e-4)


def turned_eyes(degrees, middle=(40.0, 45.0)):
  """Eyes 20 pixels apart on a line turned clockwise by so much."""
  away = 10 * np.array(
    [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]
  )
  return [*(middle - away), *(middle + away)]


def test_angles_of_the_eyes():
  """Linear between detections, and past half a turn without a jump."""

  def detector(frame):
    degrees = 150 + 3.0 * frame[0, 0, 0]
    return np.array([[*BOX, 0.99, *turned_eyes(degrees)]], np.float32)

  frames = (np.full((4, 6, 3), i, np.uint8) for i in range(23))
  [scene] = tracking.scenes(
    frames, detector, faces.Tracking(every_frames=4), cuts=lambda f: False
  )
  [track] = scene.tracks
  assert track.angles().dtype == np.float32
  np.testing.assert_allclose(
    np.degrees(track.angles()), 150 + 3.0 * np.arange(23), atol=1e-3
  )


def test_ends_that_are_settled_have_eyes_too():
  calls = []

  def detector(frame):
    calls.append(int(frame[0, 0, 0]))
    here = int(3 <= frame[0, 0, 0] < 12)
    rows = [[*BOX, 0.99, *turned_eyes(float(frame[0, 0, 0]))]] * here
    return np.array(rows, np.float32).reshape(-1, 9)

  frames = (np.full((4, 6, 3), i, np.uint8) for i in range(20))
  [scene] = tracking.scenes(
    frames, detector, faces.Tracking(), cuts=lambda f: False, exact_ends=True
  )
  [track] = scene.tracks
  assert seen(track) == (3, 12)
  np.testing.assert_allclose(
    np.degrees(track.angles()), np.arange(3, 12), atol=1e-3
  )


def test_without_eyes_all_is_level():
  scenes, _ = run(6, lambda i: [(BOX, 0.99)])
  np.testing.assert_array_equal(scenes[0].tracks[0].angles(), np.zeros(6))


def test_boxes_within_boxes_are_one_face():
  nested = BOX + [8, 8, -8, -8]
  found = np.array([[*BOX, 0.99], [*nested, 0.98], [*FAR, 0.95], [*BOX, 0.5]])
  np.testing.assert_array_equal(
    tracking.distinct(found, 0.9), np.float32([[*BOX, 0.99], [*FAR, 0.95]])
  )
  assert tracking.distinct(np.zeros((0, 5), np.float32), 0.9).shape == (0, 5)


def test_memory_does_not_grow_with_frames():
  """No more than two frames are alive at a time, however long the scene."""
  alive, most = 0, 0

  def gone():
    nonlocal alive
    alive -= 1

  def frames():
    nonlocal alive, most
    for i in range(40):
      frame = np.full((4, 6, 3), i, np.uint8)
      weakref.finalize(frame, gone)
      alive += 1
      most = max(most, alive)
      yield frame
      del frame

  list(
    tracking.scenes(
      frames(), lambda f: np.zeros((0, 5), np.float32), cuts=lambda f: False
    )
  )
  assert most <= 3


# Cuts.


def cuts_of(frames) -> list[int]:
  cut = tracking.CutFinder()
  return [i for i, frame in enumerate(frames) if cut(frame)]


def photo(size=256):
  return cv2.resize(face_picture(), (2 * size, 2 * size))


def test_cuts_between_pictures():
  other = cv2.flip(photo()[:256, :256], 1)
  frames = [photo()[:256, :256]] * 7 + [other] * 2 + [photo()[200:456]] * 5
  frames = [f[:, :256] for f in frames]
  assert cuts_of(frames) == [7, 9]


@pytest.mark.parametrize("pixels", [1, 4, 12])
def test_camera_movement_is_no_cut(pixels):
  """Pans, and a hand that shakes."""
  big = cv2.copyMakeBorder(photo(), 0, 0, 0, 600, cv2.BORDER_REFLECT)
  pan = [big[100:356, pixels * i : pixels * i + 256] for i in range(40)]
  # But for the moment in which a fast one begins.
  assert cuts_of(pan) in ([], [1])
  rng = np.random.default_rng(0)
  shake = rng.integers(0, pixels + 1, (40, 2))
  assert cuts_of([big[y : y + 256, x : x + 256] for y, x in shake]) == []


def test_light_that_changes_slowly_is_no_cut():
  picture = photo()[:256, :256].astype(float)
  assert cuts_of([(picture * k / 40).astype(np.uint8) for k in range(41)]) == []


def test_repeated_frames_are_no_cuts():
  """Movement between frames that are each shown twice or thrice."""
  frames = talking_frames(20)
  for times in (2, 3):
    assert cuts_of(np.repeat(frames, times, axis=0)) == []


def test_real_clips(grid_folder):
  """No cut within clips; one at each joint of different people."""
  other = sorted((grid_folder.parent / "grid_other").glob("*.mp4"))
  mine = sorted((grid_folder / "s1").glob("*.mp4"))[:2]
  clips = [
    list(itertools.islice(video.frames_at_rate(p, 25), 30))
    for p in [mine[0], *other, mine[1]]
  ]
  joints = list(range(30, 30 * len(clips), 30))
  assert cuts_of(itertools.chain(*clips)) == joints


# Choice.


def track_at(start, stop, box, looks=()):
  box = np.array(box, np.float32)
  times = list(range(start, stop))
  return tracking.Track(
    times,
    [box] * len(times),
    [1.0] * len(times),
    np.array(looks, np.float32),
  )


def chosen(tracks, who, **how):
  scene = tracking.Scene(0, 100, tracks)
  found = tracking.choose(scene, who, 100, 300, **how)
  return [tracks.index(t) for t in found]


LEFT, MIDDLE, RIGHT = ((0, 0, 30, 30), (130, 30, 170, 70), (240, 0, 300, 60))


def test_largest_central_and_all():
  tracks = [track_at(0, 100, b) for b in (MIDDLE, RIGHT, LEFT)]
  assert chosen(tracks, "largest") == [1]
  assert chosen(tracks, "central") == [0]
  assert chosen(tracks, "all") == [0, 1, 2]
  assert [chosen(tracks, n) for n in (1, 2, 3, 4)] == [[2], [0], [1], []]


def test_who_is_seen_beside_somebody_is_somebody_else():
  """The largest is lost for a while; the other does not take its place."""
  tracks = [
    track_at(0, 40, RIGHT),
    track_at(20, 90, LEFT),
    track_at(60, 100, RIGHT),
  ]
  assert chosen(tracks, "largest") == [0, 2]
  assert chosen(tracks, 1) == [1]
  assert chosen(tracks, 2) == [0, 2]


def test_a_single_detection_is_hardly_a_face():
  tracks = [track_at(50, 51, (0, 0, 300, 100)), track_at(0, 100, LEFT)]
  assert chosen(tracks, "largest") == [1]
  assert chosen(tracks[:1], "largest") == [0]
  assert chosen([], "largest") == chosen([], "all") == chosen([], 1) == []


def test_by_looks():
  a, b = np.eye(2, dtype=np.float32)
  tracks = [
    track_at(0, 100, RIGHT, b),
    track_at(0, 40, LEFT, a + 0.1 * b),
    track_at(60, 100, MIDDLE, a),
  ]
  assert chosen(tracks, "largest", wanted=a, min_likeness=0.5) == [2, 1]
  assert chosen(tracks, "largest", wanted=b, min_likeness=0.5) == [0]
  assert chosen(tracks[1:], "largest", wanted=b, min_likeness=0.5) == []


def test_looks_tell_grids_people_apart(grid_folder):
  """A frame of another moment finds its person among five."""
  paths = [
    sorted((grid_folder / "s1").glob("*.mp4"))[0],
    *sorted((grid_folder.parent / "grid_other").glob("*.mp4")),
  ]
  detect = detectors.make("mtcnn")
  found = []
  for path in paths:
    frames = list(video.frames_at_rate(path, 25))
    found.append(
      [tracking.looks(f, detect(f)[0, :4]) for f in (frames[3], frames[60])]
    )
  first, second = np.array(found).swapaxes(0, 1)
  likeness = first @ second.T
  assert (likeness.argmax(axis=1) == np.arange(5)).all()
  assert likeness.diagonal().min() > 0.9
