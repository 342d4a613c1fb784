"""A corpus of rendered talking faces, made from nothing but a seed.

Each clip is an ordinary H.264 + AAC mp4 of a synthetic identity saying an
English sentence, with its true mouth shapes beside it.  Nobody's face or voice
is in it.  Validation and test have identities and sentences of their own.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os

import cv2
import numpy as np
from tqdm import auto as tqdm

from data_prep import articulation, face_renderer, speech_synthesis
from w2l_jax import audio, dataset, video_writer, windows

# Silence before the speech begins.
_LEAD_SECONDS = 0.2

# Our own sentences, rich in closures and in open and rounded vowels.
SENTENCES = {
  "train": (
    "Bring my brown umbrella before the evening rain",
    "Five yellow boats move over the open bay",
    "My mother bakes apple pie for the whole family",
    "The farmer found a pale blue pebble by the pond",
    "Please put both maps above the wooden box",
    "We walk along the harbour whenever it is warm",
    "A small piano plays somewhere above my room",
    "Bobby may paint the narrow fence bright purple",
    "Old women remember the music of the mountain people",
    "The baker opens his shop at half past five",
    "Two happy monkeys jump over a fallen palm",
    "Maybe the pilot saw a huge black cloud",
    "I hope you will both come home by Monday",
    "Every map of the valley shows another path",
    "Few people know how far a bee may fly",
    "Pour some warm water over the ripe plums",
    "Her brother built a house of paper and bamboo",
    "The bus moves past our window before noon",
    "Open the book and find a poem about autumn",
    "Papa bought me a pair of comfortable boots",
    "All my favourite films are about brave animals",
    "You may leave the wheel by the garden wall",
    "A warm wave rolled over both of my feet",
    "Nobody put the pepper back above the oven",
    "Mabel wore a fur cap over a wool jumper",
    "The moon will be above the barn by four",
    "We often play football by the public library",
    "Ask a policeman for the way up to the abbey",
    "Amber honey poured from the broken beaker",
    "How many hot meals may a hungry boy eat",
    "Voices from far away filled the empty room",
    "Move the lamp before you open the window",
  ),
  "val": (
    "A family of moles lives below the apple tree",
    "Put your violin upon the marble bench",
    "The foggy morning made everybody move slowly",
    "My uncle paved a footpath above the bay",
  ),
  "test": (
    "Both pupils waved as the ferry passed the pier",
    "The poor man wore a heavy purple robe",
    "Wipe the milk off before my puppy sees it",
    "Above the farm a white balloon moved by",
    "Mama put five warm buns upon the plate",
    "How far above the sea may a wolf roam",
  ),
}
_VOICES = ("en-us", "en-us+m3", "en-us+f2", "en-us+f4")


@dataclasses.dataclass(frozen=True)
class CorpusSpec:
  """How much to render.

  Attributes:
    seed: the same seed gives the same corpus.
    identities: number of faces in train, val and test.
    clips: of each face.
  """

  seed: int = 0
  identities: tuple[int, int, int] = (24, 3, 4)
  clips: int = 5


@dataclasses.dataclass(frozen=True)
class Clip:
  """One clip to render; `name` is its path without suffix."""

  name: str
  split: str
  face_seed: int
  take: int
  utterance: speech_synthesis.Utterance


def plan(spec: CorpusSpec) -> list[Clip]:
  """Chooses who says what; identities and sentences never cross splits."""
  rng = np.random.default_rng([spec.seed, 0xC0])
  planned, number = [], 0
  for split, count in zip(dataset.SPLITS, spec.identities, strict=True):
    for _ in range(count):
      number += 1
      face_seed = int(rng.integers(2**31))
      voice = _VOICES[rng.integers(len(_VOICES))]
      pitch, rate = int(rng.integers(40, 60)), int(rng.integers(88, 104))
      sentences = rng.permutation(len(SENTENCES[split]))
      for take in range(spec.clips):
        text = SENTENCES[split][sentences[take % len(sentences)]]
        planned.append(
          Clip(
            name=f"face{number:02d}/take{take + 1}",
            split=split,
            face_seed=face_seed,
            take=take,
            utterance=speech_synthesis.Utterance(text, voice, rate, pitch),
          )
        )
  return planned


def render(spec: CorpusSpec, folder: str, workers: int) -> list[Clip]:
  """Writes the corpus; clips that are there already are not made again.

  Below `folder`: videos/NAME.mp4, truth/NAME.npz ("opening" and "width" of
  every frame in half face heights), splits/SPLIT.txt, corpus.json.

  Args:
    spec: how much.
    folder: where; belongs to one spec alone.
    workers: processes.

  Raises:
    ValueError: if the folder holds another corpus.
    SynthesisError: if there is no synthesiser.
  """
  planned = plan(spec)
  contents = {
    "spec": dataclasses.asdict(spec),
    "clips": {c.name: dataclasses.asdict(c) for c in planned},
  }
  contents = json.loads(json.dumps(contents))
  listing = os.path.join(folder, "corpus.json")
  if os.path.exists(listing):
    with open(listing, encoding="utf-8") as f:
      if json.load(f) != contents:
        raise ValueError(
          f"{listing}: describes another corpus; expected {spec}. Remove "
          f"{folder} or choose another folder"
        )
  else:
    os.makedirs(folder, exist_ok=True)
    _write(listing, json.dumps(contents, indent=1, sort_keys=True) + "\n")
  splits = os.path.join(folder, "splits")
  os.makedirs(splits, exist_ok=True)
  for split in dataset.SPLITS:
    names = [c.name for c in planned if c.split == split]
    _write(os.path.join(splits, f"{split}.txt"), "\n".join([*names, ""]))

  missing = [c for c in planned if not os.path.exists(_video(folder, c))]
  if not missing:
    return planned
  # All of them, in one order: what one says depends on what was said before.
  speeches = dict(
    zip(
      [c.name for c in planned],
      speech_synthesis.synthesize([c.utterance for c in planned]),
      strict=True,
    )
  )
  with concurrent.futures.ProcessPoolExecutor(
    max_workers=max(1, min(workers, len(missing))),
    mp_context=multiprocessing.get_context("spawn"),
  ) as pool:
    jobs = [(folder, clip, speeches[clip.name]) for clip in missing]
    for _ in tqdm.tqdm(
      # One identity's clips to one process, which paints its head once.
      pool.map(_render_clip, jobs, chunksize=spec.clips),
      total=len(jobs),
      desc="rendering",
      unit="clip",
    ):
      pass
  return planned


def _video(folder, clip):
  return os.path.join(folder, "videos", f"{clip.name}.mp4")


def true_mouth(folder: str, clip_id: str) -> dict[str, np.ndarray]:
  """Reads the true {"opening", "width"} of a clip's frames, each [frames]."""
  with np.load(os.path.join(folder, "truth", f"{clip_id}.npz")) as arrays:
    return dict(arrays)


def _write(path, text):
  with open(f"{path}.partial", "w", encoding="utf-8") as f:
    f.write(text)
  os.replace(f"{path}.partial", path)


@functools.lru_cache(maxsize=1)
def _renderer(face_seed: int) -> face_renderer.FaceRenderer:
  """The painted head is most of a clip's work."""
  return face_renderer.FaceRenderer(face_renderer.draw_identity(face_seed))


def _render_clip(job) -> None:
  folder, clip, speech = job
  cv2.setNumThreads(1)  # Processes are the parallelism.
  lead = round(_LEAD_SECONDS * speech.sample_rate)
  waveform = np.concatenate([np.zeros(lead, np.int16), speech.waveform])
  seconds = len(waveform) / speech.sample_rate
  track = articulation.mouth_track(
    tuple((s, t + _LEAD_SECONDS) for s, t in speech.phonemes),
    seconds,
    round(seconds * windows.FPS),
    windows.FPS,
  )
  identity = face_renderer.draw_identity(clip.face_seed)
  truth = os.path.join(folder, "truth", f"{clip.name}.npz")
  path = _video(folder, clip)
  for file in (truth, path):
    os.makedirs(os.path.dirname(file), exist_ok=True)
  np.savez(f"{truth}.partial.npz", **face_renderer.true_mouth(identity, track))
  os.replace(f"{truth}.partial.npz", truth)
  # The video comes last: where it is, everything of the clip is.
  with video_writer.VideoWriter(
    path, windows.FPS, audio.resample(waveform, speech.sample_rate)
  ) as writer:
    for frame in _renderer(clip.face_seed).render(
      track, clip.take, windows.FPS
    ):
      writer.write(frame)


def digest(folder: str) -> str:
  """SHA-256 over all videos, to tell whether two corpora are the same."""
  total = hashlib.sha256()
  top = os.path.join(folder, "videos")
  for parent, folders, names in os.walk(top):
    folders.sort()
    for name in sorted(names):
      total.update(os.path.relpath(os.path.join(parent, name), top).encode())
      with open(os.path.join(parent, name), "rb") as f:
        total.update(hashlib.sha256(f.read()).digest())
  return total.hexdigest()
