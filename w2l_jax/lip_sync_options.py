"""What can be asked of lip-syncing: words and numbers, checked."""

import dataclasses
import os

from w2l_jax import original, sources, tracking
from w2l_jax.sources import InferenceError

CHOICES = {
  "ending": ("padded", "original"),
  "loop": ("restart", "ping_pong", "freeze", "stop"),
  "rest": ("cut", "play"),
  "no_face": ("pass", "hold", "error"),
  "paste": ("feathered", "whole", "hard"),
  "reference": ("own", "first"),
  "silence": ("heard", "closed", "unchanged"),
}
# What compat takes where nothing else is asked for.
ORIGINAL = {
  "ending": "original",
  "loop": "restart",
  "no_face": "error",
  "paste": "hard",
  "reference": "own",
  "pads": original.PADS,
}


@dataclasses.dataclass(frozen=True)
class Options:
  """How a video is made; a checkpoint's config.inference holds some defaults.

  Attributes:
    ending: "padded": a frame for all of the speech, silence after its end;
      "original": frames whose mel window is whole, and one more.
    loop: where the speech is longer than the video: "restart", the original's,
      "ping_pong", forwards and backwards, "freeze", its last frame, or "stop",
      the speech is cut.
    rest: where the video is longer than the speech: "cut", or "play" the rest
      as it is.
    no_face: frames without a face: "pass" unchanged, "hold" the last face's
      box for `hold_seconds`, but not past a cut, or "error", the original's.
    hold_seconds: see no_face.
    paste: "feathered" blends the face's lower half in, "whole" all of it,
      "hard" is the original's.
    reference: whose looks a frame's face takes: its "own", the original's, or
      those of the "first" face of its track, so that the mouths of the video,
      which move, cannot show through.
    silence: pauses of 0.3 s and more: "heard" by the network as they are,
      noise too, "closed": as digital silence, "unchanged": the frame's own
      mouth.
    faces: whose lips move: "largest", "central", "all", a number: the n-th from
      the left, or a photo of the person; in each scene anew.
    pads: pixels to add to boxes: top, bottom, left, right.
    box: top, bottom, left, right of a box for all frames, in place of a
      detector; None or -1s: none.
    smooth: whether boxes, and angles, are averaged over time.
    align_eyes: whether boxes are turned so that the eyes are level in crops.
    detector: a name of detectors.DETECTORS; None is the checkpoint's own.
    fps, static, edit: see sources.open_pictures.
    compat: the original's arithmetic, for comparisons; see original.py.
  """

  ending: str = "padded"
  loop: str = "restart"
  rest: str = "cut"
  no_face: str = "pass"
  hold_seconds: float = 0.5
  paste: str = "feathered"
  reference: str = "own"
  silence: str = "heard"
  faces: str | int = "largest"
  pads: tuple[int, int, int, int] = (0, 0, 0, 0)
  box: tuple[int, int, int, int] | None = None
  smooth: bool = True
  align_eyes: bool = False
  detector: str | None = None
  fps: float | None = None
  static: bool = False
  edit: sources.Edit = sources.Edit()
  compat: bool = False

  def __post_init__(self):
    """Refuses unknown words and impossible numbers."""
    for name, words in CHOICES.items():
      if getattr(self, name) not in words:
        raise InferenceError(
          f"{name} is {getattr(self, name)!r}, expected one of {words}"
        )
    if self.box is not None and set(self.box) == {-1}:  # The original's "none".
      object.__setattr__(self, "box", None)
    if self.box is not None:
      top, bottom, left, right = self.box
      if not (0 <= top < bottom and 0 <= left < right):
        raise InferenceError(
          f"box is {self.box}, expected top, bottom, left, right in pixels, as "
          "80, 220, 100, 210"
        )
    if self.align_eyes:
      for given, word in (
        (self.box is not None, "a box for all frames: no eyes are looked for"),
        (self.compat, "compat, the original, which turns nothing"),
        (self.paste == "hard", "a hard paste, whose boxes are upright"),
      ):
        if given:
          raise InferenceError(f"align_eyes does not go with {word}")
    if self.hold_seconds < 0:
      raise InferenceError(
        f"hold_seconds is {self.hold_seconds}, expected 0 or more"
      )
    if self.fps is not None and not 0 < self.fps <= 1000:
      raise InferenceError(f"fps is {self.fps}, expected a number above 0")
    if str(self.faces).lstrip("-").isdigit():
      if int(self.faces) < 1:
        raise InferenceError(f"faces is {self.faces}; counting begins at 1")
      object.__setattr__(self, "faces", int(self.faces))
    elif self.faces not in tracking.WHO and not os.path.isfile(self.faces):
      raise InferenceError(
        f"faces is {self.faces!r}, expected one of {tracking.WHO}, a number or "
        "a photo"
      )
