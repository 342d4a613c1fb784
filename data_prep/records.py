"""Records, one face track of one clip each, and prepared clips as files.

What a record is made of is in clips.py; shards of records are
lipsync_dataset.py's.
"""

import dataclasses
import io
import json
import os

import cv2
import numpy as np
import soundfile

from w2l_jax import audio, dataset, windows

# Samples that belong to a frame; a record's sound is cut at whole ones.
SAMPLES_PER_FRAME = audio.SAMPLE_RATE // windows.FPS


class DamagedClip(ValueError):
  """A prepared clip cannot be read; the message says what to do."""


@dataclasses.dataclass
class Record:
  """One face track of one clip, as it goes into the shards.

  Attributes:
    id: the source's path below its folder without suffix; with `_1`, `_2`, ...
      for its second and further records.
    frames: JPEG bytes of the face crops, 25 a second, each by itself.
    mel: [T_mel, 80] float32.
    audio: FLAC bytes of the 16 kHz mono sound that the mel was computed from.
    boxes: [T, 4] float32, where the crops were cut, in source pixels; NaN where
      that is not known (imported crops).
    file: path of the source below its folder.
    start: seconds from the source's first frame to the record's.
    sha256: of the source file.
    speaker: name of the folder that the source lies in; may be empty.
    settings: Settings.as_json().
    confidence: mean score of the detections in it, in [0, 1]; NaN if imported.
    sharpness: mean variance of the Laplacian of its grey crops, in squared
      levels of 255; low where the face is blurred.
  """

  id: str
  frames: list[bytes]
  mel: np.ndarray
  audio: bytes
  boxes: np.ndarray
  file: str
  start: float
  sha256: str
  speaker: str
  settings: str
  confidence: float
  sharpness: float


def from_example(example: dict, settings: dict) -> Record:
  """Makes a record of what a data set's split gives.

  Args:
    example: of w2l_jax.dataset.Split.
    settings: of w2l_jax.dataset.preparation.
  """
  text, source = dataset.text, example["source"]
  detector = text(example["detector"])
  return Record(
    id=text(example["id"]),
    frames=list(example["frames"]),
    mel=np.asarray(example["mel"]),
    audio=bytes(example["audio"]),
    boxes=np.asarray(example["boxes"]),
    file=text(source["file"]),
    start=float(source["start"]),
    sha256=text(source["sha256"]),
    speaker=text(example["speaker"]),
    settings=json.dumps({**settings, "detector": detector}, sort_keys=True),
    # Sets of an older version lack these.
    confidence=float(example.get("confidence", np.nan)),
    sharpness=float(example.get("sharpness", np.nan)),
  )


def jpeg(image: np.ndarray, quality: int) -> bytes:
  """Encodes a crop [S, S, 3] uint8 BGR."""
  ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
  if not ok:
    raise RuntimeError("OpenCV cannot encode JPEG")
  return data.tobytes()


def flac(waveform: np.ndarray) -> bytes:
  """Encodes a 16 kHz waveform [samples] in [-1, 1] to 16 bits."""
  out = io.BytesIO()
  clipped = np.clip(waveform, -1, 1)
  soundfile.write(out, clipped, audio.SAMPLE_RATE, "PCM_16", format="FLAC")
  return out.getvalue()


def sharpness(crop: np.ndarray) -> float:
  """Variance of the Laplacian of a crop [S, S, 3] uint8, in grey."""
  grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
  return float(cv2.Laplacian(grey, cv2.CV_32F).var())


# Records as files: a zip of arrays without pickle, all fields of the dataclass.
_TEXT = ("id", "file", "sha256", "speaker", "settings")
_NUMBERS = ("start", "confidence", "sharpness")


def save_records(path: str, records: list[Record]) -> None:
  """Writes one video's records to `path`, complete or not at all."""
  arrays = {}
  for i, record in enumerate(records):
    for name, value in dataclasses.asdict(record).items():
      if name == "frames":
        arrays[f"{i}/frame_sizes"] = np.array([len(f) for f in value])
        value = b"".join(value)
      if isinstance(value, bytes):
        value = np.frombuffer(value, np.uint8)
      arrays[f"{i}/{name}"] = np.asarray(value)
  partial = f"{path}.{os.getpid()}.partial"
  try:
    with open(partial, "wb") as f:
      np.savez(f, **arrays)
    os.replace(partial, path)
  except BaseException:
    if os.path.exists(partial):
      os.remove(partial)
    raise


def load_records(path: str) -> list[Record]:
  """Reads what save_records wrote.

  Raises:
    DamagedClip: if the file is damaged.
  """
  try:
    with np.load(path, allow_pickle=False) as arrays:
      count = len({name.split("/")[0] for name in arrays.files})
      records = []
      for i in range(count):
        values = {
          field.name: arrays[f"{i}/{field.name}"]
          for field in dataclasses.fields(Record)
        }
        for name in _TEXT:
          values[name] = str(values[name])
        for name in _NUMBERS:
          values[name] = float(values[name])
        values["audio"] = values["audio"].tobytes()
        ends = np.cumsum(arrays[f"{i}/frame_sizes"])
        data = values["frames"].tobytes()
        values["frames"] = [
          data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)
        ]
        records.append(Record(**values))
      return records
  except Exception as e:  # zipfile and NumPy have a dozen kinds for damage.
    raise DamagedClip(
      f"{path}: damaged prepared clip ({e}); delete it and run the same "
      "command again"
    ) from e
