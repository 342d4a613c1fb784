"""The making of one lip-synced video: what was found, and the stages.

Two passes over the video: one for the boxes, which are kept, and one for the
faces, whose stages work side by side.  The network's part is in inference.py,
files and arrays in sources.py, who is chosen in tracking.py; this module is the
order of things.  Who calls it, and writes files, is lip_syncer.py.
"""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator
from concurrent import futures

import numpy as np

from w2l_jax import (
  audio,
  blending,
  face_boxes,
  faces,
  inference,
  original,
  pipeline,
  progress_bars,
  sources,
)
from w2l_jax.lip_sync_options import Options

# Frames that may wait between stages, and batches.
_FRAMES_WAITING, _BATCHES_WAITING = 4, 1
# Frames around a pause in which the frame's own mouth comes and goes.
_FADE_FRAMES = 5


@dataclasses.dataclass
class Summary:
  """What was done.

  Attributes:
    frames: made.
    with_face: of them, how many have a new face; the others are unchanged.
    seconds: length of the video.
    silent: whether the speech has no sound at all.
    faces: drawn, more than frames where several people speak.
    scenes: found in the video.
    wall_seconds: that it took.
    stage_seconds: that each stage worked, side by side with others.
  """

  frames: int = 0
  with_face: int = 0
  seconds: float = 0.0
  silent: bool = False
  faces: int = 0
  scenes: int = 0
  wall_seconds: float = 0.0
  stage_seconds: dict[str, float] = dataclasses.field(default_factory=dict)

  def report(self) -> str:
    """Two lines for people to read."""
    total = max(sum(self.stage_seconds.values()), 1e-9)
    stages = ", ".join(
      f"{name} {seconds:.1f} s ({seconds / total:.0%})"
      for name, seconds in self.stage_seconds.items()
    )
    return (
      f"{self.frames} frames, {self.seconds:.2f} s; a face was drawn in "
      f"{self.with_face} of them, {self.frames - self.with_face} are unchanged;"
      f" scenes: {self.scenes}\n"
      f"{self.wall_seconds:.1f} s, {self.frames / self.wall_seconds:.1f} "
      f"frames a second, {self.wall_seconds / self.seconds:.2f} times the "
      f"video's length; worked: {stages}"
    )


@dataclasses.dataclass
class Batch:
  """Frames on their way, and the faces in them.

  Attributes:
    frames: of the output, in order.
    owners: [n] which of the frames each face belongs to.
    boxes: [n, 4].
    angles: [n] radians by which the boxes are turned.
    opacity: [n].
    crops, references: [n, S, S, 3] uint8.
    starts: [n] first mel columns.
    generated: [n, S, S, 3] uint8.
  """

  frames: list = dataclasses.field(default_factory=list)
  owners: list = dataclasses.field(default_factory=list)
  boxes: list = dataclasses.field(default_factory=list)
  angles: list = dataclasses.field(default_factory=list)
  opacity: list = dataclasses.field(default_factory=list)
  crops: list = dataclasses.field(default_factory=list)
  references: list = dataclasses.field(default_factory=list)
  starts: list = dataclasses.field(default_factory=list)
  generated: np.ndarray | None = None


class Job:
  """One video."""

  def __init__(
    self,
    syncer,
    face,
    speech,
    options: Options,
    progress: progress_bars.Progress,
  ):
    """Hears the speech and looks for the faces.

    Args:
      syncer: the LipSyncer: variables, config, batch size, network.
      face, speech: as LipSyncer.frames takes them.
      options: how the video is made.
      progress: whether bars are shown, or who is told.

    Raises:
      MediaError, InferenceError: naming the file.
    """
    self._syncer = syncer
    self._options = options
    self._progress = progress
    self.clock = pipeline.Clock()
    self.summary = Summary()
    self._begun = time.perf_counter()
    config = syncer.config
    with self.clock("hear"):
      self.speech = sources.open_speech(
        speech, config["preparation"]["audio_padding"]
      )
    self.pictures = sources.open_pictures(
      face, options.fps, options.static, options.edit
    )
    self._spec = config["windows"]
    self._starts = self._mel_starts()
    # The network is compiled while faces are looked for.
    generator = syncer.generator(options.compat)
    with futures.ThreadPoolExecutor(1) as pool:
      compiled = pool.submit(generator.compile, syncer.variables)
      self._boxes = face_boxes.find(
        self.pictures,
        None if options.rest == "play" else len(self._starts),
        options,
        config["preparation"],
        self.clock,
        progress,
      )
      compiled.result()
    self._generator = functools.partial(generator, syncer.variables)
    self.total = self._total()
    self._mel, self._opacity = self._pauses()

  def _mel_starts(self) -> np.ndarray:
    """The first mel column of every frame that has speech."""
    fps, columns = float(self.pictures.fps), self._spec["mel_columns"]
    offset = self._spec["inference_mel_offset"]
    mel = self.speech.mel
    if self._options.compat and self._options.ending == "original":
      return original.window_starts(len(mel), fps, columns)
    frames = max(1, round(self.speech.seconds * self.pictures.fps))
    if self._options.ending == "original":
      frames = inference.original_frame_count(len(mel), fps, columns, offset)
    starts = inference.mel_starts(np.arange(frames), fps, offset)
    if self._options.ending == "original":
      starts[-1] = len(mel) - columns
    return starts

  def _total(self) -> int:
    """How many frames are made."""
    frames, count = len(self._starts), len(self._boxes.boxes)
    if self.pictures.still:
      return frames
    if self._options.loop == "stop":
      frames = min(frames, count)
    return max(frames, count) if self._options.rest == "play" else frames

  def _pauses(self) -> tuple[np.ndarray, np.ndarray]:
    """What the network hears, and how much of it shows in every frame."""
    mel, opacity = self.speech.mel, np.ones(len(self._starts), np.float32)
    if self._options.silence == "heard":
      return mel, opacity
    quiet = sources.quiet_columns(mel, self._spec.get("speech_threshold", -2.5))
    if self._options.silence == "closed":
      return np.where(quiet[:, None], np.float32(audio.SILENCE), mel), opacity
    # What is seen in a frame is in the middle of its window.
    middles = self._starts + self._spec["mel_columns"] // 2
    speaks = ~quiet[np.clip(middles, 0, len(mel) - 1)]
    fade = np.ones(_FADE_FRAMES) / _FADE_FRAMES
    padded = np.pad(speaks.astype(float), _FADE_FRAMES // 2, mode="edge")
    return mel, np.convolve(padded, fade, mode="valid").astype(np.float32)

  # --- The stages of the second pass ---

  def _source(self) -> Iterator[tuple[int, np.ndarray]]:
    count = len(self._boxes.boxes)
    looped = sources.looped(self.pictures, count, self._options.loop)
    return itertools.islice(looped, self.total)

  def _batches(self, source) -> Iterator[Batch]:
    """Cuts faces out until a batch of them is full."""
    size, most = self._syncer.config["image_size"], self._syncer.batch_size
    hard = self._options.paste == "hard"
    references: dict[int, np.ndarray] = {}
    batch = Batch()
    for k, (i, frame) in enumerate(source):
      here = np.flatnonzero(np.isfinite(self._boxes.boxes[i, :, 0]))
      if k >= len(self._starts) or not self._opacity[k]:
        here = []
      if batch.frames and len(batch.crops) + len(here) > most:
        yield batch
        batch = Batch()
      with self.clock("crop"):
        for slot in here:
          box = self._boxes.boxes[i, slot]
          angle = float(self._boxes.angles[i, slot])
          if hard:
            face = faces.crop(frame, box, size)
          else:
            face = faces.crop_exact(frame, box, size, angle)
          reference = face
          if self._options.reference == "first":
            track = self._boxes.tracks[i, slot]
            reference = references.setdefault(track, face)
          batch.owners.append(len(batch.frames))
          batch.boxes.append(box)
          batch.angles.append(angle)
          batch.opacity.append(self._opacity[k])
          batch.crops.append(face)
          batch.references.append(reference)
          batch.starts.append(self._starts[k])
      batch.frames.append(frame)
      # Frames without faces must not pile up.
      if len(batch.frames) >= most:
        yield batch
        batch = Batch()
    if batch.frames:
      yield batch

  def _generate(self, batches) -> Iterator[Batch]:
    columns = self._spec["mel_columns"]
    for batch in batches:
      with self.clock("generate"):
        if batch.crops:
          mels = inference.mel_windows(
            self._mel, np.array(batch.starts), columns
          )
          batch.generated = self._generator(
            np.stack(batch.crops), mels, np.stack(batch.references)
          )
      yield batch

  def _paste(self, batches) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (source frame, result)."""
    for batch in batches:
      drawn = list(batch.frames)
      for n, owner in enumerate(batch.owners):
        with self.clock("paste"):
          face, box = batch.generated[n], batch.boxes[n]
          if self._options.paste == "hard":
            drawn[owner] = faces.paste(drawn[owner], face, box)
          else:
            drawn[owner] = blending.blend(
              drawn[owner],
              face,
              box,
              "whole" if self._options.paste == "whole" else "lower",
              opacity=batch.opacity[n],
              angle=batch.angles[n],
            )
      self.summary.faces += len(batch.owners)
      self.summary.with_face += len(set(batch.owners))
      yield from zip(batch.frames, drawn, strict=True)

  def results(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (source frame, result) of every frame."""
    frames = pipeline.in_thread(
      self.clock.items("decode", self._source()), _FRAMES_WAITING
    )
    batches = pipeline.stage(self._batches, frames, _BATCHES_WAITING)
    generated = pipeline.stage(self._generate, batches, _BATCHES_WAITING)
    results = pipeline.stage(self._paste, generated, _FRAMES_WAITING)
    with (
      contextlib.closing(results),
      progress_bars.shown(
        results, self._progress, "lip-syncing", self.total
      ) as shown,
    ):
      for pair in shown:
        self.summary.frames += 1
        yield pair
    self.finish()

  def finish(self) -> None:
    """Completes the summary."""
    summary = self.summary
    summary.seconds = summary.frames / float(self.pictures.fps)
    summary.silent = self.speech.silent
    summary.scenes = self._boxes.scenes
    summary.wall_seconds = time.perf_counter() - self._begun
    summary.stage_seconds = dict(self.clock.seconds)
