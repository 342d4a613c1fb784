"""What decides how clips become records, and why a clip may become none.

How they do is in clips.py and face_tracks.py.
"""

import dataclasses
import hashlib
import json

from w2l_jax import faces

# The original wants more than 15 frames (wav2lip_train.py).
MIN_FRAMES = 16
# `detector` begins with this where a folder gives the boxes.
BOXES = "boxes:"
# What becomes of a record that is judged by its sync (sync_filter.py).
FATES = KEPT, SHIFTED, DROPPED = "kept", "shifted", "dropped"


class SetAside(Exception):
  """A source cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class Settings:
  """What decides how a clip's records look.

  Attributes:
    image_size: side of the stored face crops.
    detector: what w2l_jax.detectors.make takes, or boxes:FOLDER.
    keep_faces: "largest" of those at the same time, or "all": then most
      faces are not who speaks, and the set is to be filtered by sync.
    crop_rule: of faces.cut_boxes.  Records hold boxes as they were detected.
    audio_padding: of w2l_jax.audio.log_mel.
    jpeg_quality: of the stored crops.
    max_frames: longer tracks become several records of equal length.  Training
      reads whole records, so they should stay short; 10 s.
    tracking: how boxes are found over time.
    recipe: raised whenever the same settings come to give other records, so
      that clips of an older version are made again.
  """

  image_size: int = 96
  detector: str = "mtcnn"
  keep_faces: str = "largest"
  crop_rule: str = faces.CROP_RULE
  audio_padding: str = "reflect"
  jpeg_quality: int = 95
  max_frames: int = 250
  tracking: faces.Tracking = faces.Tracking()
  recipe: int = 2

  def as_json(self) -> str:
    """Returns the settings as one line of JSON."""
    return json.dumps(dataclasses.asdict(self), sort_keys=True)

  @classmethod
  def from_dict(cls, fields: dict) -> "Settings":
    """Makes settings of what as_json says; older ones may lack fields."""
    tracking = faces.Tracking(**fields["tracking"])
    return cls(**{"recipe": 1, **fields, "tracking": tracking})

  def key(self) -> str:
    """Returns a short hash that names these settings."""
    return hashlib.sha256(self.as_json().encode()).hexdigest()[:12]
