"""What faces look like: the arithmetic, what it ignores, and GRID's people."""

import cv2
import numpy as np
import pytest
from conftest import face_picture

from w2l_jax import detectors, looks, video

# Of conftest.face_picture(), as MTCNN gives them.
EYES = np.array([110.0, 104.0, 147.0, 105.0])


def test_against_a_loop():
  """Pixel by pixel and cell by cell."""
  frame = face_picture()
  grey = cv2.cvtColor(looks.upright(frame, EYES), cv2.COLOR_BGR2GRAY)
  grey = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(int)
  # Clockwise from the left upper neighbour.
  around = [
    (-1, -1),
    (-1, 0),
    (-1, 1),
    (0, 1),
    (1, 1),
    (1, 0),
    (1, -1),
    (0, -1),
  ]
  counts = np.zeros((6, 6, 256))
  for y in range(62):
    for x in range(62):
      middle = grey[y + 1, x + 1]
      pattern = sum(
        2**k
        for k, (dy, dx) in enumerate(around)
        if grey[y + 1 + dy, x + 1 + dx] >= middle
      )
      row, column = (
        next(c for c in range(6) if i < (c + 1) * 62 // 6) for i in (y, x)
      )
      counts[row, column, pattern] += 1
  expected = np.sqrt(counts.ravel())
  expected -= expected.mean()
  expected /= np.linalg.norm(expected)
  found = looks.looks(frame, EYES)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_eyes_are_put_in_place():
  """Two dots, wherever they are and however turned."""
  for eyes in ((60, 80, 100, 80), (100, 60, 80, 120), (40, 50, 90, 70)):
    frame = np.zeros((160, 160, 3), np.uint8)
    for x, y in np.reshape(eyes, (2, 2)):
      cv2.circle(frame, (x, y), 4, (255, 255, 255), -1)
    face = looks.upright(frame, np.array(eyes, np.float32))[..., 0]
    for x in (0.32, 0.68):
      half = face.copy().astype(float)
      half[:, : 32 if x > 0.5 else None][:, 0 if x > 0.5 else 32 :] = 0
      place = np.argwhere(half > 128).mean(axis=0)
      assert np.abs(place - [0.36 * 64, x * 64]).max() < 1


@pytest.mark.parametrize(
  "change",
  [
    lambda f: (255 * (f / 255.0) ** 0.6).astype(np.uint8),
    lambda f: (f * np.linspace(0.5, 1, f.shape[1])[None, :, None]).astype("u1"),
    lambda f: f[..., ::-1],
    lambda f: cv2.GaussianBlur(f, (0, 0), 1),
  ],
)
def test_light_colours_and_focus_count_for_little(change):
  frame = face_picture()
  other = change(frame)
  found = looks.likeness(looks.looks(frame, EYES), looks.looks(other, EYES))
  assert found > looks.MIN_LIKENESS + 0.05


def test_size_and_turn_count_for_little():
  frame = face_picture()
  turn = cv2.getRotationMatrix2D((120, 120), 20, 0.6)
  turned = cv2.warpAffine(frame, turn, (256, 256), flags=cv2.INTER_AREA)
  eyes = [turn @ [*eye, 1] for eye in EYES.reshape(2, 2)]
  a, b = looks.looks(frame, EYES), looks.looks(turned, np.ravel(eyes))
  assert looks.likeness(a, b) > looks.MIN_LIKENESS + 0.05


def test_likeness_is_the_cosine():
  a, b = np.array([3.0, 4.0]), np.array([4.0, 3.0])
  assert abs(looks.likeness(a, b) - 0.96) < 1e-9
  assert looks.likeness(a, 5 * a) == pytest.approx(1)
  assert looks.likeness(0 * a, b) == 0


def test_grids_people_are_told_apart(grid_folder):
  """Another clip of a person is known again, and nobody else is."""
  clips = sorted((grid_folder / "s1").glob("*.mp4"))[::170][:5]
  others = sorted((grid_folder.parent / "grid_other").glob("*.mp4"))
  detect = detectors.make("mtcnn", True)

  def of(path, moments):
    wanted = {k: f for k, f in enumerate(video.frames_at_rate(path, 25))}
    return [looks.looks(wanted[k], detect(wanted[k])[0, 5:]) for k in moments]

  photos = [of(path, [30])[0] for path in (clips[0], *others)]
  for n, path in enumerate((*clips[1:], *others)):
    track = np.mean(of(path, range(0, 75, 15)), axis=0)
    alike = [looks.likeness(track, photo) for photo in photos]
    who = max(0, n - len(clips) + 2)
    assert alike[who] > looks.MIN_LIKENESS, (path, alike)
    assert all(
      value < looks.MIN_LIKENESS for k, value in enumerate(alike) if k != who
    ), (path, alike)
