r"""The whole system on an embedded corpus: run it, then open the report.

  python -m launch.demo

Renders talking faces, prepares them, trains the expert and the generator, makes
a face that was never trained on say a sentence that was never trained on, and
measures the result.  Interrupted and run again, it goes on where it was.
Writes WORKDIR/lipsync.mp4, strip.png (frames of input and result), summary.json
and report.html.
"""

import contextlib
import json
import os
import platform
import sys
import time

import cv2
import jax
import numpy as np
from absl import app, flags, logging

from configs import expert_rendered, generator_rendered
from data_prep import clips, prepare, rendered_corpus, speech_synthesis
from launch import demo_report
from w2l_jax import (
  checkpoints,
  dataset,
  inference,
  lip_syncer,
  metrics,
  sharding,
  train_expert,
  train_generator,
  train_loop,
  video,
  video_writer,
  windows,
)
from w2l_jax.evaluation import mouth_measure

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Where all goes.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the corpus and the training.")
_SIZE = flags.DEFINE_enum(
  "size", "small", ["small", "tiny"], "tiny only shows that all parts run."
)
_WORKERS = flags.DEFINE_integer(
  "workers", os.cpu_count(), "Processes that render and prepare.", lower_bound=1
)
_CORPUS = {
  "small": rendered_corpus.CorpusSpec(identities=(40, 4, 6), clips=2),
  "tiny": rendered_corpus.CorpusSpec(identities=(2, 1, 2), clips=1),
}
_PAIRS = 12
# The ends of a mouth track are silence below this part of its greatest opening.
_CLOSED = 0.02


class Steps:
  """Runs named steps once and keeps their seconds, over restarts."""

  def __init__(self, workdir: str):
    """Reads what earlier runs have done."""
    self._path = os.path.join(workdir, "steps.json")
    self.seconds: dict[str, float] = {}
    self.done: list[str] = []
    if os.path.exists(self._path):
      with open(self._path) as f:
        state = json.load(f)
      self.seconds, self.done = state["seconds"], state["done"]

  @contextlib.contextmanager
  def timed(self, name: str):
    """Adds the block's seconds, also of one that is interrupted."""
    print(f"\n== {name}", flush=True)
    start = time.monotonic()
    finished = False
    try:
      yield
      finished = True
    finally:
      spent = time.monotonic() - start
      self.seconds[name] = self.seconds.get(name, 0.0) + spent
      if finished and name not in self.done:
        self.done.append(name)
      self._write()

  def _write(self):
    with open(f"{self._path}.partial", "w") as f:
      json.dump({"seconds": self.seconds, "done": self.done}, f, indent=2)
    os.replace(f"{self._path}.partial", self._path)


def make_pairs(split: dataset.Split, count: int, seed: int) -> list:
  """Chooses (record of the face, record of the speech), never of one clip.

  The two are of different people where there are two.
  """
  rng = np.random.default_rng([seed, 0xDA])
  people = [
    dataset.text(split[i]["id"]).split("/")[0] for i in range(len(split))
  ]
  pairs = []
  for face in rng.permutation(len(split)):
    others = [i for i in range(len(split)) if people[i] != people[face]]
    others = others or [i for i in range(len(split)) if i != face]
    pairs.append((int(face), int(rng.choice(others))))
  return pairs[:count]


def mouth_tracks(split, pairs, corpus, generator, variables, config) -> list:
  """Measures every pair: [{"truth", "generated", "input", ...}].

  Frames before the mouth first opens and after it last closes are left out.
  """
  found = []
  for face, speech in pairs:
    driver = split[speech]
    truth = rendered_corpus.true_mouth(corpus, dataset.text(driver["id"]))
    opening = truth["opening"]
    crops, fakes = inference.lipsync_crops(
      generator,
      variables,
      config,
      dataset.decode_frames(split[face]),
      driver["mel"],
      len(opening),
    )
    spoken = np.flatnonzero(opening > _CLOSED * opening.max())
    part = slice(spoken[0], spoken[-1] + 1)
    tracks = {
      "truth": opening[part],
      "generated": mouth_measure.mouth_opening(fakes)[part],
      "input": mouth_measure.mouth_opening(crops)[part],
    }
    found.append(
      {
        "face": dataset.text(split[face]["id"]),
        "speech": dataset.text(driver["id"]),
        "correlation": mouth_measure.track_correlation(
          tracks["generated"], tracks["truth"]
        ),
        "correlation_input": mouth_measure.track_correlation(
          tracks["input"], tracks["truth"]
        ),
        "tracks": {
          k: [round(float(x), 5) for x in v] for k, v in tracks.items()
        },
      }
    )
  return found


def _configs(workdir: str, seed: int, size: str):
  expert = expert_rendered.get_config(size)
  generator = generator_rendered.get_config(size)
  generator.expert_checkpoint = os.path.join(workdir, "expert")
  for config in (expert, generator):
    config.seed = seed
    config.data.dir = os.path.join(workdir, "data")
  return expert, generator


def _machine() -> dict:
  return {
    "platform": platform.platform(),
    "python": platform.python_version(),
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
    "cpu_count": os.cpu_count(),
  }


def _measure(workdir, corpus, configs, seed) -> tuple[dict, list]:
  """Figures of the test split; the first pair is the one that is shown."""
  expert_config, generator_config = configs
  directory = dataset.builder_dir(
    expert_config.data.dir, expert_config.image_size
  )
  val, test = (dataset.Split(directory, name) for name in ("val", "test"))
  mesh = sharding.make_mesh(generator_config.data.batch_size)
  expert, _ = train_expert.load_frozen(os.path.join(workdir, "expert"))
  chosen = train_expert.make_evaluator(expert_config, val, mesh)(expert)
  thresholds = {s: chosen[f"eval/threshold{s}"] for s in ("", "_all")}
  of_expert = train_expert.make_evaluator(expert_config, test, mesh)(
    expert, thresholds=thresholds
  )
  variables, config = inference.load_generator(
    os.path.join(workdir, "generator")
  )
  of_generator, _ = train_generator.make_evaluator(
    generator_config, config["expert"], test, mesh
  )(variables, {"expert": expert})
  pairs = mouth_tracks(
    test,
    make_pairs(test, _PAIRS, seed),
    corpus,
    inference.FaceGenerator(config),
    variables,
    config,
  )
  summary = {
    "expert_accuracy": of_expert["eval/two_way_accuracy"],
    "expert_accuracy_all_windows": of_expert["eval/two_way_accuracy_all"],
    "expert_balanced_accuracy": of_expert["eval/balanced_accuracy"],
    "expert_loss": of_expert["eval/loss"],
    "mouth_correlation": float(np.mean([p["correlation"] for p in pairs])),
    "mouth_correlation_input": float(
      np.mean([p["correlation_input"] for p in pairs])
    ),
    "sync_loss_generated": of_generator["eval/loss_sync"],
    "sync_loss_real": of_generator["eval/loss_sync_real"],
    "sync_loss_copied": of_generator["eval/loss_sync_copied"],
    "lower_l1": of_generator["eval/lower_l1"],
    "lower_l1_copied": of_generator["eval/lower_l1_copied"],
    "lower_psnr": of_generator["eval/lower_psnr"],
    "lower_psnr_copied": of_generator["eval/lower_psnr_copied"],
    "lower_ssim": of_generator["eval/lower_ssim"],
    "lower_ssim_copied": of_generator["eval/lower_ssim_copied"],
    "pairs": len(pairs),
  }
  return summary, pairs


def run(workdir: str, seed: int, size: str, workers: int) -> dict:
  """Runs all steps; returns what summary.json holds."""
  os.makedirs(workdir, exist_ok=True)
  steps = Steps(workdir)
  # A restart, and the same network used twice, need not compile again.
  if not jax.config.jax_compilation_cache_dir:
    cache = os.path.abspath(os.path.join(workdir, "cache"))
    jax.config.update("jax_compilation_cache_dir", cache)
  corpus, data = (os.path.join(workdir, name) for name in ("corpus", "data"))
  spec = rendered_corpus.CorpusSpec(
    seed, _CORPUS[size].identities, _CORPUS[size].clips
  )
  expert_config, generator_config = _configs(workdir, seed, size)
  with steps.timed("corpus"):
    rendered_corpus.render(spec, corpus, workers)
  with steps.timed("preparation"):
    report = prepare.prepare(
      os.path.join(corpus, "videos"),
      data,
      clips.Settings(image_size=expert_config.image_size),
      splits_folder=os.path.join(corpus, "splits"),
      workers=workers,
    )
    for file, reason in report.set_aside.items():
      print(f"set aside: {file}: {reason}")
  for name, config, train in (
    ("expert", expert_config, train_expert.train_and_evaluate),
    ("generator", generator_config, train_generator.train_and_evaluate),
  ):
    with steps.timed(name):
      folder = os.path.join(workdir, name)
      state = train(config, folder)
      if int(state.step) < config.train.num_steps:
        sys.exit(f"stopped at step {int(state.step)}; run again to go on")
  with steps.timed("evaluation"):
    summary, pairs = _measure(
      workdir, corpus, (expert_config, generator_config), seed
    )
  with steps.timed("lip-sync"):
    face, speech = (
      os.path.join(corpus, "videos", f"{pairs[0][k]}.mp4")
      for k in ("face", "speech")
    )
    outfile = os.path.join(workdir, "lipsync.mp4")
    syncer = lip_syncer.LipSyncer.from_checkpoint(
      os.path.join(workdir, "generator")
    )
    done = syncer.write(face, speech, outfile, progress=True)
    before = os.path.join(workdir, "input.mp4")
    _write_input(face, speech, before, done.frames)
    _write_strip(before, outfile, os.path.join(workdir, "strip.png"))
  summary |= {
    "seed": seed,
    "size": size,
    "clips": len(rendered_corpus.plan(spec)),
    "face": pairs[0]["face"],
    "speech": pairs[0]["speech"],
    "seconds": steps.seconds,
    "machine": _machine(),
  }
  with steps.timed("report"):
    demo_report.write(workdir, summary, pairs)
  summary["seconds"] = steps.seconds
  path = os.path.join(workdir, "summary.json")
  with open(f"{path}.partial", "w") as f:
    json.dump(summary, f, indent=2)
    f.write("\n")
  os.replace(f"{path}.partial", path)
  return summary


def _write_input(face: str, speech: str, path: str, frames: int) -> None:
  """Writes the face video, unchanged, with the other clip's sound."""
  waveform, rate = video.read_audio(speech)
  pictures = list(video.frames_at_rate(face, windows.FPS))
  with video_writer.VideoWriter(path, windows.FPS, waveform, rate) as writer:
    for i in range(frames):
      writer.write(pictures[i % len(pictures)])


def _write_strip(before: str, after: str, path: str, count: int = 7) -> None:
  """Writes a picture: frames of the input above those of the result."""
  rows = []
  for file in (before, after):
    frames = list(video.frames_at_rate(file, windows.FPS))
    chosen = np.linspace(0, len(frames) - 1, count + 2).round().astype(int)
    small = [
      cv2.resize(frames[i], (128, 128), interpolation=cv2.INTER_AREA)
      for i in chosen[1:-1]
    ]
    rows.append(np.concatenate(small, axis=1))
  metrics.save_image(path, np.concatenate(rows))


def main(argv):
  """Runs the demo and prints its figures."""
  logging.set_verbosity(logging.ERROR)
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  cv2.setNumThreads(1)  # Grain's threads decode in parallel.
  try:
    summary = run(_WORKDIR.value, _SEED.value, _SIZE.value, _WORKERS.value)
  except (
    speech_synthesis.SynthesisError,
    prepare.PrepareError,
    dataset.DatasetError,
    checkpoints.CheckpointError,
    train_loop.TrainingError,
    OSError,
    ValueError,
  ) as e:
    sys.exit(f"error: {e}")
  print()
  for name in demo_report.HEADLINES:
    print(f"{name.ljust(26)} {summary[name]:.3f}")
  total = sum(summary["seconds"].values())
  print(f"\n{total / 60:.1f} minutes; open {_WORKDIR.value}/report.html")


if __name__ == "__main__":
  app.run(main)
