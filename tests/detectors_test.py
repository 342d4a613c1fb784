"""Both detectors on the astronaut's photo, which has one face."""

import conftest
import cv2
import numpy as np
import pytest
import skimage.data
import yunet_file

from w2l_jax import detectors

NAMES = ("mtcnn", "haar")
# Forehead to chin and ear to ear, measured by eye in conftest.face_picture().
FACE = np.array([84.0, 62.0, 173.0, 177.0])


def overlap(a, b) -> float:
  """Intersection over union, by counting quarter pixels."""
  masks = []
  for box in (a, b):
    mask = np.zeros((4 * 600, 4 * 600), bool)
    x1, y1, x2, y2 = (round(4 * float(v)) for v in box[:4])
    mask[max(y1, 0) : y2, max(x1, 0) : x2] = True
    masks.append(mask)
  return (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()


def detect(name, frame):
  before = frame.copy()
  found = detectors.make(name)(frame)
  np.testing.assert_array_equal(frame, before)
  assert found.dtype == np.float32
  assert found.ndim == 2
  assert found.shape[1] == 5
  assert (np.diff(found[:, 4]) <= 0).all()
  return found


@pytest.mark.parametrize("name", NAMES)
def test_the_face_is_found(name):
  found = detect(name, conftest.face_picture())
  assert len(found) == 1
  assert overlap(found[0], FACE) > 0.75
  assert 0.9 < found[0, 4] <= 1


def test_detectors_agree():
  picture = conftest.face_picture()
  a, b = (detect(name, picture)[0] for name in NAMES)
  assert overlap(a, b) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_photo(name):
  """512 x 512, so that the frame is shrunk; the face is where it was."""
  photo = np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])
  found = detect(name, photo)
  assert overlap(found[0], FACE + [96, 0, 96, 0]) > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_boxes_move_with_the_face(name):
  picture = conftest.face_picture()
  wide = np.full((256 + 60, 256 + 120, 3), 128, np.uint8)
  wide[40:296, 100:356] = picture
  found = detect(name, wide)
  # Haar has no confidence and finds a second, small face in the collar; the
  # tracker starts from the largest.
  largest = max(found, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
  assert overlap(largest, FACE + [100, 40, 100, 40]) > 0.7


def test_colours_are_blue_green_red():
  """MTCNN is surer of a face than of a blue one; Haar sees grey pictures."""
  picture = conftest.face_picture()
  right = detect("mtcnn", picture)[0, 4]
  wrong = detect("mtcnn", np.ascontiguousarray(picture[..., ::-1]))
  assert not len(wrong) or wrong[0, 4] < right


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
  "kind", ["grey", "black", "white", "noise", "small", "one pixel", "sliver"]
)
def test_nothing_is_found_in_nothing(name, kind):
  rng = np.random.default_rng(0)
  frame = {
    "grey": np.full((200, 240, 3), 120, np.uint8),
    "black": np.zeros((200, 240, 3), np.uint8),
    "white": np.full((200, 240, 3), 255, np.uint8),
    "noise": rng.integers(0, 256, (200, 240, 3), dtype=np.uint8),
    "small": rng.integers(0, 256, (9, 9, 3), dtype=np.uint8),
    "one pixel": np.zeros((1, 1, 3), np.uint8),
    "sliver": np.zeros((1, 2000, 3), np.uint8),
  }[kind]
  assert detect(name, frame).shape == (0, 5)


@pytest.mark.parametrize("name", NAMES)
def test_three_times_larger_gives_boxes_three_times_larger(name):
  """768 x 768: shrunk, where the picture itself is not."""
  picture = conftest.face_picture()
  small = detect(name, picture)[0]
  large = detect(
    name, cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
  )[0]
  side = 3 * (small[3] - small[1])
  assert np.abs(large[:4] - 3 * small[:4]).max() < 0.06 * side


@pytest.mark.parametrize(("name", "tolerance"), [("mtcnn", 12), ("haar", 0)])
def test_shrinking_maps_boxes_back(name, tolerance):
  """Every pixel three times: shrinking to 480 gives the same picture again.

  MTCNN looks for smaller faces in it, and so goes through other scales.
  """
  picture = cv2.resize(conftest.face_picture(), (480, 400))
  tripled = picture.repeat(3, axis=0).repeat(3, axis=1)
  small, large = detect(name, picture), detect(name, tripled)
  assert len(small) == len(large) == 1
  np.testing.assert_allclose(
    large[0, :4], 3 * small[0, :4], rtol=1e-5, atol=tolerance
  )
  np.testing.assert_allclose(large[0, 4], small[0, 4], rtol=1e-3)


# --- Eyes ---

# In conftest.face_picture(), by eye: the left one, the right one.
EYES = np.array([110.0, 104.0, 147.0, 105.0])


def test_eyes_follow_the_score():
  picture = conftest.face_picture()
  found = detectors.make("mtcnn", True)(picture)
  assert found.shape == (1, 9) and found.dtype == np.float32
  np.testing.assert_array_equal(found[:, :5], detect("mtcnn", picture))
  np.testing.assert_allclose(found[0, 5:], EYES, atol=4)
  # Shrunk to 480, and back.
  large = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
  found = detectors.make("mtcnn", True)(large)
  np.testing.assert_allclose(found[0, 5:], 3 * EYES, atol=12)
  assert detectors.make("mtcnn", True)(0 * picture).shape == (0, 9)


def test_haar_finds_no_eyes():
  with pytest.raises(ValueError, match="haar finds no eyes; mtcnn does"):
    detectors.make("haar", True)


def test_two_faces_come_best_first():
  picture = conftest.face_picture()
  pair = np.concatenate([picture, cv2.GaussianBlur(picture, (0, 0), 2)], axis=1)
  found = detect("mtcnn", pair)
  assert len(found) == 2
  assert found[0, 4] > found[1, 4]


@pytest.mark.parametrize("name", NAMES)
def test_detectors_remember_nothing(name):
  picture = conftest.face_picture()
  first = detect(name, picture)
  detect(name, np.zeros((300, 200, 3), np.uint8))
  np.testing.assert_array_equal(detect(name, picture), first)


# --- YuNet ---


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """A file of which white cells of 8 x 8 pixels are faces, see yunet_file."""
  path = tmp_path_factory.mktemp("yunet") / "yunet.onnx"
  path.write_bytes(yunet_file.yunet_like())
  return f"yunet:{path}"


@pytest.mark.parametrize("scale", [1, 2])
def test_yunet_boxes(model, scale):
  """At twice 480 pixels the frame is shrunk, and boxes are mapped back."""
  frame = np.zeros((320 * scale, 480 * scale, 3), np.uint8)
  frame[104 * scale : 112 * scale, 200 * scale : 208 * scale] = 255
  found = detect(model, frame)
  assert found.shape == (1, 5)
  np.testing.assert_allclose(
    found[0, :4],
    np.array([204 - 24, 108 - 32, 204 + 24, 108 + 32]) * scale,
    atol=0.1,
  )
  assert found[0, 4] > 0.95
  assert detect(model, 0 * frame).shape == (0, 5)


def test_yunet_eyes(model):
  """Those of the file are all in the cell's corner, also in a shrunk frame."""
  for scale in (1, 2):
    frame = np.zeros((320 * scale, 480 * scale, 3), np.uint8)
    frame[104 * scale : 112 * scale, 200 * scale : 208 * scale] = 255
    found = detectors.make(model, True)(frame)
    np.testing.assert_allclose(
      found[0, 5:], np.array([200, 104, 200, 104]) * scale, atol=0.1
    )
    assert detectors.make(model, True)(0 * frame).shape == (0, 9)


def test_yunet_takes_frames_of_any_size(model):
  """Padded to whole cells of 32 by OpenCV."""
  for height, width in ((288, 360), (97, 131), (320, 480)):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[48:56, 64:72] = 255
    found = detect(model, frame)
    np.testing.assert_allclose(found[0, :4], [44, 20, 92, 84], atol=0.1)


def test_yunet_wants_its_file(tmp_path):
  with pytest.raises(
    ValueError, match="nowhere.onnx: no such file.*yunet:FILE"
  ):
    detectors.make(f"yunet:{tmp_path / 'nowhere.onnx'}")
  (tmp_path / "bad.onnx").write_bytes(b"not a network")
  with pytest.raises(ValueError, match="bad.onnx: OpenCV cannot use it"):
    detectors.make(f"yunet:{tmp_path / 'bad.onnx'}")


def test_made_once():
  assert detectors.make("haar") is detectors.make("haar")


def test_unknown_names():
  with pytest.raises(ValueError, match="'s3fd'.*mtcnn, haar"):
    detectors.make("s3fd")
