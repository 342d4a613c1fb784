"""One clip: from a video, or a folder of crops, to records.

What one source becomes depends on it and the `Settings` alone.  Its face
tracks are face_tracks.py's matter, the order of clips and shards prepare.py's.
"""

import dataclasses
import hashlib
import itertools
import os

import numpy as np

from data_prep import face_tracks, records
from data_prep.settings import SetAside, Settings
from w2l_jax import audio, faces, video, windows


def make_records(
  folder: str,
  file: str,
  clip_id: str,
  settings: Settings,
  laps: face_tracks.Laps | None = None,
) -> list[records.Record]:
  """Makes one source's records.

  Args:
    folder: the data set's root.
    file: the path below it, of a video or of a folder of crops.
    clip_id: what the records are called.
    settings: how.
    laps: where the time went is added here.

  Returns:
    At least one record, in order of time.

  Raises:
    SetAside: if the source cannot be used, with the reason.
  """
  path = os.path.join(folder, file)
  laps = face_tracks.Laps() if laps is None else laps
  try:
    if os.path.isdir(path):
      settings = dataclasses.replace(
        settings,
        detector=face_tracks.CROPS_DETECTOR,
        crop_rule=faces.CROP_RULE,
      )
      with laps.lap("sound"):
        waveform = _sound(os.path.join(path, face_tracks.CROPS_SOUND))
      with laps.lap("crop"):
        tracks = face_tracks.of_crops(path, settings)
    else:
      if not video.has_video(path):
        raise SetAside("has no video stream")
      with laps.lap("sound"):
        waveform = _sound(path)
      tracks = face_tracks.of_video(path, clip_id, settings, laps)
    with laps.lap("hash"):
      sha256 = _sha256(path)
  except video.MediaError as e:
    raise SetAside(str(e).removeprefix(path).lstrip("/: ")) from e
  per_frame = records.SAMPLES_PER_FRAME
  made = []
  for track in tracks:
    for piece in _pieces(len(track.crops), settings.max_frames):
      frames = slice(piece.start + track.start, piece.stop + track.start)
      # A record's sound is cut at whole samples: 640 to a frame.
      sound = waveform[frames.start * per_frame : frames.stop * per_frame]
      if len(sound) < 5 * per_frame:
        continue
      inside = (frames.start <= track.times) & (track.times < frames.stop)
      with laps.lap("mel"):
        mel = audio.log_mel(sound, padding=settings.audio_padding)
      made.append(
        records.Record(
          id=f"{clip_id}_{len(made)}" if made else clip_id,
          frames=track.crops[piece],
          mel=mel,
          audio=records.flac(sound),
          boxes=track.boxes[piece],
          file=file,
          start=frames.start / windows.FPS,
          sha256=sha256,
          speaker=os.path.basename(os.path.dirname(file)),
          settings=settings.as_json(),
          confidence=float(track.scores[inside].mean())
          if inside.any()
          else float("nan"),
          sharpness=float(
            np.mean(
              [
                value
                for time, value in track.sharpness.items()
                if frames.start <= time < frames.stop
              ]
            )
          ),
        )
      )
  if not made:
    raise SetAside(
      f"has {len(waveform) / audio.SAMPLE_RATE:.2f} s of sound beside its "
      "faces, less than the 0.2 s of one window"
    )
  return made


def _sound(path: str) -> np.ndarray:
  """[samples] float32 at 16 kHz, sample 0 at the first frame."""
  waveform = audio.resample(*video.read_audio(path))
  if not np.all(np.isfinite(waveform)):
    raise SetAside("its sound has values that are not finite")
  if not np.any(waveform):
    raise SetAside("its sound is digital silence")
  return waveform


def _sha256(path: str) -> str:
  """Of a file, or of a folder's files in the order of their names."""
  if not os.path.isdir(path):
    with open(path, "rb") as f:
      return hashlib.file_digest(f, "sha256").hexdigest()
  digest = hashlib.sha256()
  for name in sorted(os.listdir(path)):
    with open(os.path.join(path, name), "rb") as f:
      digest.update(hashlib.file_digest(f, "sha256").digest())
  return digest.hexdigest()


def _pieces(count: int, most: int) -> list[slice]:
  """Cuts `count` frames into as few equal pieces as have at most `most`."""
  edges = np.linspace(0, count, -(-count // most) + 1).round().astype(int)
  return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
