"""One clip: from a video file to records, and records as files.

What one video becomes depends on the file and the `Settings` alone.  The order
of clips, processes and shards is prepare.py's and lipsync_dataset.py's matter.
"""

import dataclasses
import hashlib
import io
import json
import os

import cv2
import numpy as np
import soundfile

from w2l_jax import audio, detectors, faces, video, windows

# The original wants more than 15 frames (wav2lip_train.py).
MIN_FRAMES = 16


class SetAside(Exception):
  """A video cannot be used; the message says why."""


class DamagedClip(ValueError):
  """A prepared clip cannot be read; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Settings:
  """What decides how a clip's records look.

  Attributes:
    image_size: side of the stored face crops.
    detector: a name of w2l_jax.detectors.DETECTORS.
    crop_rule: a name; faces.CROP_RULE is the only one.
    audio_padding: of w2l_jax.audio.log_mel.
    jpeg_quality: of the stored crops.
    tracking: how boxes are found over time.
  """

  image_size: int = 96
  detector: str = "mtcnn"
  crop_rule: str = faces.CROP_RULE
  audio_padding: str = "reflect"
  jpeg_quality: int = 95
  tracking: faces.Tracking = faces.Tracking()

  def as_json(self) -> str:
    """Returns the settings as one line of JSON."""
    return json.dumps(dataclasses.asdict(self), sort_keys=True)

  def key(self) -> str:
    """Returns a short hash that names these settings."""
    return hashlib.sha256(self.as_json().encode()).hexdigest()[:12]


@dataclasses.dataclass
class Record:
  """One face track of one clip, as it goes into the shards.

  Attributes:
    id: the video's path below its folder without suffix; with `_1`, `_2`, ...
      for its second and further tracks.
    frames: JPEG bytes of the face crops, 25 a second.
    mel: [T_mel, 80] float32.
    audio: FLAC bytes of the 16 kHz mono sound that the mel was computed from.
    boxes: [T, 4] float32, where the crops were cut, in source pixels.
    file: path of the source below its folder.
    start: seconds from the source's first frame to the record's.
    sha256: of the source file.
    speaker: name of the folder that the source lies in; may be empty.
    settings: Settings.as_json().
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


def make_records(
  folder: str, file: str, clip_id: str, settings: Settings
) -> list[Record]:
  """Makes one video's records.

  Args:
    folder: the data set's root.
    file: the video's path below it.
    clip_id: what the records are called.
    settings: how.

  Returns:
    At least one record, in order of time.

  Raises:
    SetAside: if the video cannot be used, with the reason.
  """
  path = os.path.join(folder, file)
  try:
    if not video.has_video(path):
      raise SetAside("has no video stream")
    waveform, sample_rate = video.read_audio(path)
    frames = list(video.frames_at_rate(path, windows.FPS))
  except video.MediaError as e:
    raise SetAside(str(e).removeprefix(f"{path}: ")) from e
  waveform = audio.resample(waveform, sample_rate)
  if len(frames) < MIN_FRAMES:
    raise SetAside(
      f"has {len(frames)} frames at 25 a second, fewer than {MIN_FRAMES}"
    )
  if not np.all(np.isfinite(waveform)):
    raise SetAside("its sound has values that are not finite")
  if not np.any(waveform):
    raise SetAside("its sound is digital silence")
  boxes = faces.smooth_boxes(
    faces.track_face(
      frames, detectors.make(settings.detector), settings.tracking
    ),
    settings.tracking.smooth_frames,
  )
  tracks = [r for r in faces.runs(boxes) if r.stop - r.start >= MIN_FRAMES]
  if not tracks:
    found = int(np.isfinite(boxes[:, 0]).sum())
    raise SetAside(
      f"no face in {MIN_FRAMES} frames on end ({found} of {len(frames)} frames "
      "have one)"
    )
  with open(path, "rb") as f:
    sha256 = hashlib.file_digest(f, "sha256").hexdigest()
  records = []
  for i, track in enumerate(tracks):
    # A record's sound is cut at whole samples: 640 to a frame.
    per_frame = audio.SAMPLE_RATE // windows.FPS
    sound = waveform[track.start * per_frame : track.stop * per_frame]
    if len(sound) < 5 * per_frame:
      continue
    records.append(
      Record(
        id=clip_id if i == 0 else f"{clip_id}_{i}",
        frames=[
          _jpeg(
            faces.crop(frame, box, settings.image_size), settings.jpeg_quality
          )
          for frame, box in zip(frames[track], boxes[track], strict=True)
        ],
        mel=audio.log_mel(sound, padding=settings.audio_padding),
        audio=_flac(sound),
        boxes=boxes[track],
        file=file,
        start=track.start / windows.FPS,
        sha256=sha256,
        speaker=os.path.basename(os.path.dirname(file)),
        settings=settings.as_json(),
      )
    )
  if not records:
    raise SetAside(
      f"has {len(waveform) / audio.SAMPLE_RATE:.2f} s of sound beside its "
      "faces, less than the 0.2 s of one window"
    )
  return records


def _jpeg(image: np.ndarray, quality: int) -> bytes:
  ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
  if not ok:
    raise RuntimeError("OpenCV cannot encode JPEG")
  return data.tobytes()


def _flac(waveform: np.ndarray) -> bytes:
  out = io.BytesIO()
  clipped = np.clip(waveform, -1, 1)
  soundfile.write(out, clipped, audio.SAMPLE_RATE, "PCM_16", format="FLAC")
  return out.getvalue()


# Records as files: a zip of arrays without pickle, all fields of the dataclass.
_TEXT = ("id", "file", "sha256", "speaker", "settings")


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
        values["start"] = float(values["start"])
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
