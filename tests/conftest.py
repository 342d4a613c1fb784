"""Settings of every test, and the talking videos that the tests make.

The face is scikit-image's astronaut; the speech is noise in bursts.  No test
needs a download; those that use the real clips in ../shared skip without them.
"""

import atexit
import json
import os
import pathlib
import shutil
import tempfile

# Before JAX is imported; subprocesses inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _cache = tempfile.mkdtemp(prefix="w2l_jax_test_cache")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
  atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
# The tests' networks are small and their compile time is not: quarter it.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

import cv2
import jax
import numpy as np
import pytest
import skimage.data
from absl import flags

from configs import expert_grid, gan_grid
from data_prep import clips, prepare
from w2l_jax import (
  inference,
  lip_syncer,
  metrics,
  train_expert,
  train_generator,
  video_writer,
)

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
GRID = REPOSITORY.parent / "shared" / "data" / "grid_s1"
# Six clips: enough for every split, two of them a second long.
CLIP_SECONDS = (1.2, 1.6, 1.4, 1.2, 2.0, 1.0)
SAMPLE_RATE = 16_000
# Steps of the trained networks that tests share.
STEPS = 4
# Settings of the prepared set: the :tiny configs' face size.
FACE_SIZE = 24
# Where face_picture's face is: top, bottom, left, right.
BOX = (60, 190, 80, 170)
SETTINGS = clips.Settings(image_size=FACE_SIZE)

# Grain's worker processes read absl flags, which pytest does not parse.
flags.FLAGS.mark_as_parsed()
# A shape that broadcasts by chance is a bug.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(tryfirst=True)  # Before xdist reads the marks.
def pytest_collection_modifyitems(items):
  """Tests that need trained networks share one process, which trains them."""
  for item in items:
    if {"expert_run", "gan_run"} & set(item.fixturenames):
      item.add_marker(pytest.mark.xdist_group("trained"))


def face_picture(size: int = 256) -> np.ndarray:
  """The astronaut's head and shoulders, BGR uint8 [size, size, 3]."""
  photo = skimage.data.astronaut()[0:256, 96:352]
  return cv2.resize(np.ascontiguousarray(photo[..., ::-1]), (size, size))


def wall(height=256, width=256) -> np.ndarray:
  """A picture without a face."""
  y, x = np.mgrid[:height, :width]
  return np.stack([x % 256, y % 256, (x + y) // 2 % 256], 2).astype(np.uint8)


def talking_frames(count: int, seed: int = 0, size: int = 256) -> list:
  """A face that sways a little and whose mouth region flickers."""
  rng = np.random.default_rng(seed)
  picture = face_picture(size)
  frames = []
  for i in range(count):
    shift = np.float32(
      [[1, 0, 4 * np.sin(i / 7 + seed)], [0, 1, 3 * np.cos(i / 9)]]
    )
    frame = cv2.warpAffine(
      picture, shift, (size, size), borderMode=cv2.BORDER_REPLICATE
    )
    # A mouth: dark ellipse, opened at random.
    opening = int(rng.integers(1, max(2, size // 25)))
    centre = (int(size * 0.49), int(size * 0.60))
    cv2.ellipse(
      frame, centre, (size // 20, opening), 0, 0, 360, (40, 30, 90), -1
    )
    frames.append(frame)
  return frames


def babble(seconds: float, seed: int = 0, rate: int = SAMPLE_RATE):
  """Noise in bursts, float32 [samples] in [-1, 1]."""
  rng = np.random.default_rng(seed + 1000)
  n = round(seconds * rate)
  envelope = np.repeat(
    rng.uniform(0.05, 1.0, n // (rate // 10) + 1), rate // 10
  )
  return (
    (0.3 * envelope[:n] * rng.standard_normal(n)).clip(-1, 1).astype(np.float32)
  )


def write_video(
  path, frames, waveform=None, fps=25, sample_rate=SAMPLE_RATE
) -> None:
  """Writes frames and sound with the project's own writer."""
  with video_writer.VideoWriter(path, fps, waveform, sample_rate) as writer:
    for frame in frames:
      writer.write(frame)


@pytest.fixture
def as_on(monkeypatch):
  """as_on(platform): what it has of its own is computed here, too."""

  def choose(platform):
    def chosen(*args, default, **branches):
      return branches.get(platform, default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", chosen)

  return choose


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory):
  """A folder of six talking clips: someone/clip0.mp4 ... clip5.mp4."""
  folder = tmp_path_factory.mktemp("videos")
  (folder / "someone").mkdir()
  for i, seconds in enumerate(CLIP_SECONDS):
    write_video(
      folder / "someone" / f"clip{i}.mp4",
      talking_frames(round(25 * seconds), seed=i),
      babble(seconds, seed=i),
    )
  return folder


@pytest.fixture(scope="session")
def splits_folder(tmp_path_factory):
  """Split lists of video_folder: four clips, one and one."""
  folder = tmp_path_factory.mktemp("splits")
  names = [f"someone/clip{i}" for i in range(len(CLIP_SECONDS))]
  for split, part in (
    ("train", names[:4]),
    ("val", names[4:5]),
    ("test", names[5:]),
  ):
    (folder / f"{split}.txt").write_text("".join(f"{n}\n" for n in part))
  return folder


@pytest.fixture(scope="session")
def data_dir(video_folder, splits_folder, tmp_path_factory):
  """video_folder prepared at FACE_SIZE pixels; tests must not change it."""
  output = tmp_path_factory.mktemp("data")
  prepare.prepare(
    str(video_folder),
    str(output),
    SETTINGS,
    splits_folder=str(splits_folder),
    workers=2,
  )
  return str(output)


@pytest.fixture(scope="session")
def grid_folder():
  """The real GRID clips, where they are at hand."""
  if not (GRID / "s1").is_dir():
    pytest.skip("no real clips: ../shared/data/grid_s1 is not there")
  return GRID


# --- Trained networks ---


def assert_trees_equal(a, b):
  """Bit for bit, with the path of what differs."""
  a, b = (
    jax.tree_util.tree_leaves_with_path(jax.device_get(t)) for t in (a, b)
  )
  assert [path for path, _ in a] == [path for path, _ in b]
  for (path, x), (_, y) in zip(a, b, strict=True):
    np.testing.assert_array_equal(x, y, err_msg=str(path))


def schedule(config, num_steps):
  config.train.num_steps = num_steps
  config.train.eval_every_steps = 2
  config.train.save_every_steps = 1
  return config


def expert_config(data_dir, num_steps=STEPS):
  config = expert_grid.get_config("tiny")
  config.data.dir = data_dir
  return schedule(config, num_steps)


def gan_config(data_dir, expert, num_steps=STEPS, get=gan_grid.get_config):
  config = get("tiny")
  config.data.dir = data_dir
  config.expert_checkpoint = expert
  # So that the expert's gradient is there and the rule has something to do.
  config.loss.sync_weight_initial = 0.01
  config.loss.sync_on_below = 1e6
  # The original's weights, which tests of the arithmetic know.
  config.loss.sync_weight = 0.03
  if config.loss.adversarial_weight:
    config.loss.adversarial_weight = 0.07
  # So that Adam's first moments are the gradients themselves.
  config.optimizer.clip_norm = 0.0
  return schedule(config, num_steps)


@pytest.fixture(scope="session")
def expert_run(data_dir, tmp_path_factory):
  """(workdir, last state) of an expert trained without interruption."""
  workdir = str(tmp_path_factory.mktemp("expert"))
  state = train_expert.train_and_evaluate(expert_config(data_dir), workdir)
  return workdir, jax.device_get(state)


@pytest.fixture(scope="session")
def gan_run(data_dir, expert_run, tmp_path_factory):
  """(workdir, last state) of a GAN generator trained without interruption."""
  workdir = str(tmp_path_factory.mktemp("gan"))
  config = gan_config(data_dir, expert_run[0])
  state = train_generator.train_and_evaluate(config, workdir)
  return workdir, jax.device_get(state)


@pytest.fixture(scope="session")
def syncer():
  return grey_syncer()


def grey_syncer():
  """A lip syncer whose tiny network has learnt nothing: it draws grey."""
  config = gan_grid.get_config("tiny").to_dict()
  config["preparation"] = json.loads(SETTINGS.as_json())
  shapes = inference.model_inputs(config)
  variables = jax.jit(inference.make_model(config).init)(
    jax.random.key(0), *(np.zeros(x.shape, x.dtype) for x in shapes)
  )
  return lip_syncer.LipSyncer(variables, config, batch_size=4)


def untimed(workdir):
  """The lines of metrics.jsonl without what the clock says."""
  return [
    {k: v for k, v in line.items() if not k.startswith("time/")}
    for line in metrics.read_metrics(workdir)
  ]
