"""Whole folders: what is kept, set aside, made again, and gone on with."""

import collections
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import (
  CLIP_SECONDS,
  REPOSITORY,
  SETTINGS,
  babble,
  talking_frames,
  write_video,
)

from data_prep import clips, isolation, prepare
from data_prep import records as records_lib
from w2l_jax import dataset

SIZE = SETTINGS.image_size
CLIP_IDS = [f"someone/clip{i}" for i in range(len(CLIP_SECONDS))]


def one_after_the_other(function, jobs, workers, limit):
  """Stands in for isolation.run: a spawned process costs seconds of imports."""
  del workers, limit
  for job in jobs:
    yield job, function(job)


@pytest.fixture
def same_process(monkeypatch):
  monkeypatch.setattr(isolation, "run", one_after_the_other)


@pytest.fixture
def videos(video_folder, tmp_path):
  """A copy of video_folder, its times kept."""
  return shutil.copytree(video_folder, tmp_path / "videos")


@pytest.fixture
def output(data_dir, tmp_path):
  """A copy of data_dir: `videos` as already prepared."""
  return shutil.copytree(data_dir, tmp_path / "data")


def run(videos, output, splits=None, settings=SETTINGS, **kwargs):
  return prepare.prepare(
    str(videos),
    str(output),
    settings,
    splits_folder=None if splits is None else str(splits),
    **kwargs,
  )


def add_clip(videos, name: str, seed: int, seconds: float = 1.0) -> None:
  path = pathlib.Path(videos) / name
  path.parent.mkdir(exist_ok=True, parents=True)
  write_video(
    path, talking_frames(round(25 * seconds), seed), babble(seconds, seed)
  )


def shards(output) -> pathlib.Path:
  return pathlib.Path(output) / "lipsync_dataset" / f"face{SIZE}" / "1.0.0"


def contents(folder) -> dict[str, bytes]:
  """The bytes of every file of a data set but the note on the clips' times."""
  return {
    path.name: path.read_bytes()
    for path in sorted(pathlib.Path(folder).iterdir())
    if path.name != "preparation.json"
  }


def times(folder) -> dict[str, tuple]:
  return {
    str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


def records(output) -> dict[str, dict[str, dict]]:
  """Every record of every split, by TFDS alone: {split: {id: record}}."""
  builder = tfds.builder_from_directory(str(shards(output)))
  return {
    split: {
      record["id"].decode(): record for record in builder.as_data_source(split)
    }
    for split in builder.info.splits
  }


def quantisation(jpeg: bytes) -> bytes:
  """The table of a JPEG's brightness, which tells its quality."""
  start = jpeg.index(b"\xff\xdb")
  return jpeg[start : start + 69]


def quantisation_of(quality: int) -> bytes:
  _, jpeg = cv2.imencode(
    ".jpg",
    np.zeros((16, 16, 3), np.uint8),
    [cv2.IMWRITE_JPEG_QUALITY, quality],
  )
  return quantisation(jpeg.tobytes())


def report_file(output) -> dict:
  return json.loads((pathlib.Path(output) / "report.json").read_text())


# --- Good and bad files ------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  """(videos, output, report) of a folder of three good files and seven bad."""
  videos = tmp_path_factory.mktemp("mixed")
  output = tmp_path_factory.mktemp("mixed_data")
  add_clip(videos, "deep/er/one.mp4", 1)
  add_clip(videos, "two words.mp4", 2)
  # A second track is called thing_1, and so is another file.
  frames = talking_frames(60, 3)
  frames[20:40] = [np.full((256, 256, 3), 90, np.uint8)] * 20
  write_video(videos / "thing.mp4", frames, babble(2.4, 3))
  add_clip(videos, "thing_1.mp4", 4)
  (videos / "notes.doc").write_text("notes\n" * 50)
  (videos / "empty.mp4").touch()
  (videos / "link.mp4").symlink_to("nowhere.mp4")
  write_video(videos / "mute.mp4", talking_frames(20), None)
  write_video(videos / "short.mp4", talking_frames(12), babble(0.5))
  whole = (videos / "two words.mp4").read_bytes()
  (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
  grey = np.full((64, 64, 3), 90, np.uint8)
  write_video(videos / "nobody.mp4", [grey] * 20, babble(0.8))
  (videos / ".hidden.mp4").write_bytes(whole)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(isolation, "run", one_after_the_other)
    report = run(videos, output, val_fraction=0, test_fraction=0)
  return videos, output, report


def test_bad_files_are_set_aside_with_reasons(mixed):
  _, output, report = mixed
  expected = {
    "notes.doc": "no video|not a video",
    "empty.mp4": "empty",
    "link.mp4": "no such file",
    "mute.mp4": "no audio",
    "short.mp4": "12 frames",
    "cut.mp4": "cut off",
    "nobody.mp4": "no face",
  }
  written = report_file(output)
  assert written["set_aside"] == report.set_aside
  assert report.set_aside.keys() == expected.keys()
  for file, why in expected.items():
    assert any(w in report.set_aside[file] for w in why.split("|")), file


def test_good_files_are_kept(mixed):
  _, output, report = mixed
  assert report.made == 4 and report.reused == 0
  assert report.records == {"train": 5}
  builder = tfds.builder_from_directory(str(shards(output)))
  kept = collections.Counter(
    (
      record["source"]["file"].decode(),
      round(float(record["source"]["start"]), 2),
    )
    for record in builder.as_data_source("train")
  )
  assert kept == {
    ("deep/er/one.mp4", 0.0): 1,
    ("two words.mp4", 0.0): 1,
    ("thing.mp4", 0.0): 1,
    ("thing.mp4", 1.6): 1,
    ("thing_1.mp4", 0.0): 1,
  }
  assert report_file(output)["records"] == {"train": 5}
  assert report.frames == sum(
    len(record["frames"]) for record in builder.as_data_source("train")
  )


def test_set_aside_files_are_not_tried_again(mixed, same_process, monkeypatch):
  videos, output, report = mixed
  before = times(output / "lipsync_dataset"), times(output / "clips")
  monkeypatch.setattr(
    clips, "make_records", lambda *args: pytest.fail(f"made again: {args}")
  )
  again = run(videos, output, val_fraction=0, test_fraction=0)
  assert (again.made, again.reused) == (0, 4)
  assert again.set_aside == report.set_aside
  assert (times(output / "lipsync_dataset"), times(output / "clips")) == before


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path, same_process):
  videos = tmp_path / "videos"
  videos.mkdir()
  for i in range(3):
    (videos / f"{i}.mp4").touch()
  (videos / "notes.doc").write_text("notes\n" * 50)
  with pytest.raises(prepare.PrepareError, match="of 4 sources.*3 x .*empty"):
    run(videos, tmp_path / "data")
  assert len(report_file(tmp_path / "data")["set_aside"]) == 4
  assert not (tmp_path / "data" / "lipsync_dataset").exists()


# --- Run again ---------------------------------------------------------------


def test_running_again_does_nothing(
  videos, output, splits_folder, same_process
):
  before = times(output / "lipsync_dataset"), times(output / "clips")
  assert len(before[1]) == 12
  report = run(videos, output, splits_folder)
  assert (report.made, report.reused, report.frames) == (0, 6, 0)
  assert report.records == {"train": 4, "val": 1, "test": 1}
  assert (times(output / "lipsync_dataset"), times(output / "clips")) == before


def test_one_more_video_costs_one_clip(videos, output, same_process):
  run(videos, output, val_fraction=0.3, test_fraction=0.3)
  splits_before = {s: set(r) for s, r in records(output).items()}
  clips_before = times(output / "clips")
  add_clip(videos, "someone/new.mp4", 9)
  report = run(videos, output, val_fraction=0.3, test_fraction=0.3)
  assert (report.made, report.reused, report.frames) == (1, 6, 25)
  splits_after = {s: set(r) for s, r in records(output).items()}
  assert set().union(*splits_after.values()) == {*CLIP_IDS, "someone/new"}
  for split, ids in splits_before.items():
    assert ids == splits_after[split] - {"someone/new"}
  after = times(output / "clips")
  assert len(after) == len(clips_before) + 2
  assert clips_before.items() <= after.items()
  assert sum(report.records.values()) == 7


def test_a_changed_source_is_made_again(
  videos, output, splits_folder, same_process
):
  before = records(output)
  add_clip(videos, "someone/clip1.mp4", 77)
  report = run(videos, output, splits_folder)
  assert (report.made, report.reused) == (1, 5)
  after = records(output)
  for split, expected in before.items():
    for clip_id, record in expected.items():
      same = after[split][clip_id]["frames"] == record["frames"]
      assert bool(np.all(same)) == (clip_id != "someone/clip1")
  path = videos / "someone" / "clip1.mp4"
  assert (
    after["train"]["someone/clip1"]["source"]["sha256"].decode()
    == hashlib.sha256(path.read_bytes()).hexdigest()
  )
  # Damaged: it goes.
  whole = path.read_bytes()
  path.write_bytes(whole[:3000])
  report = run(videos, output, splits_folder)
  assert (report.made, report.reused) == (0, 5)
  assert list(report.set_aside) == ["someone/clip1.mp4"]
  assert "someone/clip1" not in records(output)["train"]
  # Mended: it is back.  Deleted: it goes, and is no error.
  path.write_bytes(whole)
  assert run(videos, output, splits_folder).made == 1
  assert "someone/clip1" in records(output)["train"]
  path.unlink()
  report = run(videos, output, splits_folder)
  assert (report.made, report.reused) == (0, 5)
  assert report.not_found == ["someone/clip1"]
  assert "someone/clip1" not in records(output)["train"]


def test_other_settings_do_not_mix(videos, output, splits_folder, same_process):
  for i in range(2, 6):
    (videos / "someone" / f"clip{i}.mp4").unlink()
  (splits_folder_2 := videos.parent / "lists").mkdir()
  (splits_folder_2 / "train.txt").write_text("someone/clip0\nsomeone/clip1\n")
  before = records(output)["train"]
  coarse = clips.Settings(image_size=SIZE, detector="haar", jpeg_quality=30)
  report = run(videos, output, splits_folder_2, coarse)
  assert (report.made, report.reused) == (2, 0)
  after = records(output)["train"]
  assert set(after) == {"someone/clip0", "someone/clip1"}
  for clip_id, record in after.items():
    assert record["detector"].decode() == "haar"
    for jpeg in record["frames"]:
      assert quantisation(jpeg) == quantisation_of(30) != quantisation_of(95)
    for jpeg in before[clip_id]["frames"]:
      assert quantisation(jpeg) == quantisation_of(95)
  assert dataset.preparation(str(shards(output)))["jpeg_quality"] == 30
  # And back: nothing is made, the old crops are packed again.
  report = run(videos, output, splits_folder_2)
  assert (report.made, report.reused) == (0, 2)
  after = records(output)["train"]
  for clip_id, record in after.items():
    assert list(record["frames"]) == list(before[clip_id]["frames"])
  # Another size is another data set beside this one.
  large = clips.Settings(image_size=2 * SIZE, detector="haar")
  assert run(videos, output, splits_folder_2, large).made == 2
  assert list(records(output)["train"]["someone/clip0"]["frames"]) == list(
    before["someone/clip0"]["frames"]
  )
  other = dataset.Split(dataset.builder_dir(str(output), 2 * SIZE), "train")
  jpeg = np.frombuffer(other[0]["frames"][0], np.uint8)
  assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (2 * SIZE, 2 * SIZE, 3)


# --- Interrupted -------------------------------------------------------------


def test_an_interrupted_run_goes_on(
  videos, data_dir, splits_folder, tmp_path, same_process, monkeypatch
):
  made = []

  def stop_at_the_fourth(folder, file, *args):
    if len(made) == 3:
      raise KeyboardInterrupt
    made.append(file)
    return make_records(folder, file, *args)

  make_records = clips.make_records
  output = tmp_path / "fresh"
  with monkeypatch.context() as patch:
    patch.setattr(clips, "make_records", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
      run(videos, output, splits_folder)
  assert not (output / "lipsync_dataset").exists()
  report = run(videos, output, splits_folder)
  assert (report.made, report.reused) == (3, 3)
  assert contents(shards(output)) == contents(shards(data_dir))


def test_lost_notes_and_clips_are_made_again(
  videos, output, data_dir, splits_folder, same_process
):
  notes = sorted((output / "clips").rglob("*.json"))
  kept = sorted((output / "clips").rglob("*.npz"))
  notes[0].unlink()
  notes[1].write_text(notes[1].read_text()[:20])
  notes[2].write_text("")
  kept[3].unlink()
  report = run(videos, output, splits_folder)
  assert (report.made, report.reused) == (4, 2)
  assert contents(shards(output)) == contents(shards(data_dir))


def test_half_written_leftovers_do_no_harm(
  videos, output, data_dir, splits_folder, same_process
):
  note = next((output / "clips").rglob("*.json"))
  clip = note.with_suffix(".npz")
  clip.with_name(f"{clip.name}.123.partial").write_bytes(b"PK half")
  note.with_name(f"{note.name}.123.partial").write_text('{"id": "som')
  (output / "report.json.123.partial").write_text("{")
  packing = output / ".packing"
  shutil.copytree(shards(output), shards(packing))
  for path in shards(packing).iterdir():
    path.write_bytes(path.read_bytes()[:100])
  (shards(packing).parent / "incomplete.ABC_1.0.0").mkdir()
  # Something to pack: another list.
  fewer = videos.parent / "fewer"
  fewer.mkdir()
  (fewer / "train.txt").write_text("someone/clip3\n")
  assert run(videos, output, fewer).records == {"train": 1}
  assert set(records(output)["train"]) == {"someone/clip3"}
  run(videos, output, splits_folder)
  assert contents(shards(output)) == contents(shards(data_dir))
  assert not packing.exists()


def test_interrupted_packing_leaves_the_old_set(
  videos, output, data_dir, splits_folder, same_process, monkeypatch
):
  def stop(directory):
    raise KeyboardInterrupt(directory)

  before = contents(shards(output))
  add_clip(videos, "someone/new.mp4", 9)
  with monkeypatch.context() as patch:
    patch.setattr(dataset, "write_indices", stop)
    with pytest.raises(KeyboardInterrupt):
      run(videos, output, val_fraction=0, test_fraction=0)
  assert contents(shards(output)) == before
  assert len(dataset.Split(str(shards(output)), "train")) == 4
  report = run(videos, output, val_fraction=0, test_fraction=0)
  assert (report.made, report.reused) == (0, 7)
  assert report.records == {"train": 7}
  assert set(records(output)["train"]) == {*CLIP_IDS, "someone/new"}


@pytest.mark.parametrize(
  "name", ["lipsync_dataset-train.array_record-00000-of-00001", "index-val.npz"]
)
def test_a_damaged_set_is_named_and_mended(
  videos, output, data_dir, splits_folder, same_process, name
):
  path = shards(output) / name
  path.write_bytes(path.read_bytes()[:-500])
  with pytest.raises(dataset.DatasetError, match=f"{name}.*delete its folder"):
    run(videos, output, splits_folder)
  # As the message says.
  shutil.rmtree(path.parent)
  assert run(videos, output, splits_folder).reused == 6
  assert contents(shards(output)) == contents(shards(data_dir))


def test_a_damaged_clip_is_named_and_mended(
  videos, output, data_dir, splits_folder, same_process
):
  clip = next((output / "clips").rglob("*.npz"))
  clip.write_bytes(clip.read_bytes()[:5000])
  shutil.rmtree(shards(output))
  with pytest.raises(prepare.PrepareError, match=clip.name):
    run(videos, output, splits_folder)
  # As the message says.
  clip.unlink()
  report = run(videos, output, splits_folder)
  assert (report.made, report.reused) == (1, 5)
  assert contents(shards(output)) == contents(shards(data_dir))


def _processes() -> dict[int, int]:
  """{process: its parent} of all that run; what has ended does not."""
  found = {}
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      state, parent = path.read_text().rsplit(")", 1)[1].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
      continue
    if state not in "ZX":
      found[int(path.parent.name)] = int(parent)
  return found


@pytest.mark.skipif(
  not os.path.exists("/proc/self/stat"), reason="looks processes up in /proc"
)
def test_a_killed_run_goes_on_to_the_same_shards(
  video_folder, splits_folder, data_dir, tmp_path, same_process
):
  output = tmp_path / "killed"
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "launch.prepare_data",
      f"--input={video_folder}",
      f"--output={output}",
      f"--splits={splits_folder}",
      f"--image_size={SIZE}",
      "--workers=1",
    ],
    cwd=REPOSITORY,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  children = []
  try:
    deadline = time.monotonic() + 120
    while not list(output.glob("clips/*/*/*.npz")):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
    children = [
      pid for pid, parent in _processes().items() if parent == process.pid
    ]
  finally:
    process.kill()
    process.wait()
  assert children
  # Killed by itself, it takes its workers along.
  deadline = time.monotonic() + 20
  left = set(children)
  while left and time.monotonic() < deadline:
    time.sleep(0.05)
    left &= _processes().keys()
  for pid in left:
    os.kill(pid, 9)
  assert not left
  noted = list(output.glob("clips/*/*/*.json"))
  assert len(noted) < len(CLIP_SECONDS)
  assert not (output / "lipsync_dataset").exists()
  report = run(video_folder, output, splits_folder)
  assert report.made == len(CLIP_SECONDS) - len(noted)
  assert report.reused == len(noted)
  assert contents(shards(output)) == contents(shards(data_dir))


def test_a_lost_clip_is_set_aside_and_noted(videos, tmp_path, monkeypatch):
  """As where a decoder crashes; touched, the file is tried again."""

  def lose_one(function, jobs, workers, limit):
    assert workers == 3
    for job in jobs:
      # A second for 100 kB beside what is given.
      size = (videos / job.file).stat().st_size
      assert limit(job) == pytest.approx(7 + size / 100_000)
      lost = job.clip_id == "someone/clip1"
      yield job, isolation.Lost("died") if lost else function(job)

  monkeypatch.setattr(isolation, "run", lose_one)
  output, arguments = tmp_path / "data", {"workers": 3, "clip_timeout": 7}
  report = run(videos, output, **arguments)
  assert report.set_aside == {
    "someone/clip1.mp4": "died; touch the file to have it tried again"
  }
  assert report.made == 5
  again = run(videos, output, **arguments)
  assert (again.made, again.reused) == (0, 5) and again.set_aside
  monkeypatch.setattr(isolation, "run", one_after_the_other)
  (videos / "someone" / "clip1.mp4").touch()
  assert run(videos, output).made == 1


def test_an_error_of_a_kind_not_met_before_costs_one_clip(
  videos, tmp_path, same_process, monkeypatch
):
  def fail(folder, file, *args):
    if file.endswith("clip2.mp4"):
      raise ZeroDivisionError("of a new kind")
    return make_records(folder, file, *args)

  make_records = clips.make_records
  monkeypatch.setattr(clips, "make_records", fail)
  report = run(videos, tmp_path / "data")
  assert report.set_aside == {
    "someone/clip2.mp4": "unexpected ZeroDivisionError: of a new kind"
  }


@pytest.mark.parametrize(
  ("number", "why"), [(28, "the disk is full"), (30, "the file system is read")]
)
def test_a_full_disk_is_one_sentence(
  videos, data_dir, splits_folder, tmp_path, same_process, monkeypatch, number,
  why,
):  # fmt: skip
  def full(path, made):
    raise OSError(number, os.strerror(number), path)

  output = tmp_path / "data"
  with monkeypatch.context() as patch:
    patch.setattr(records_lib, "save_records", full)
    with pytest.raises(
      prepare.PrepareError, match=rf"cannot be written: {why}.*same command"
    ):
      run(videos, output, splits_folder)
  # Nothing is noted of the clip: with room again it is made.
  run(videos, output, splits_folder)
  assert contents(shards(output)) == contents(shards(data_dir))


def test_a_folder_that_cannot_be(videos, tmp_path, same_process):
  (tmp_path / "file").touch()
  with pytest.raises(
    prepare.PrepareError, match="cannot be written: there is a file where"
  ):
    run(videos, tmp_path / "file" / "data")


@pytest.mark.slow
def test_ten_kills(video_folder, splits_folder, data_dir, tmp_path):
  """Killed ten times, some while packing, it ends with the same shards."""
  output = tmp_path / "killed"
  rng = np.random.default_rng(10)
  command = [
    sys.executable, "-m", "launch.prepare_data", f"--input={video_folder}",
    f"--output={output}", f"--splits={splits_folder}",
    f"--image_size={SIZE}", "--workers=2",
  ]  # fmt: skip

  def progress():
    if (output / ".packing").exists():
      return len(CLIP_SECONDS) + 1
    return len(list(output.glob("clips/*/*/*.json")))

  reached = []
  for kill in range(10):
    process = subprocess.Popen(
      command,
      cwd=REPOSITORY,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    # The goal moves on: a clip further at every second kill, then the packing.
    goal = min((kill + 1) // 2 + 1, len(CLIP_SECONDS) + 1)
    while progress() < goal and process.poll() is None:
      time.sleep(0.005)
    time.sleep(float(rng.uniform(0, 0.2)))
    os.killpg(process.pid, 9)
    process.wait()
    reached.append(progress())
  assert reached[0] < reached[-1]
  run(video_folder, output, splits_folder, workers=2)
  assert contents(shards(output)) == contents(shards(data_dir))
  assert not (output / ".packing").exists()


# --- Splits ------------------------------------------------------------------


def test_lists_and_videos_that_do_not_match_are_reported(
  videos, output, tmp_path, same_process
):
  lists = tmp_path / "lists"
  lists.mkdir()
  (lists / "train.txt").write_text("someone/clip0\nsomeone/clip1\ngone/1\n")
  (lists / "val.txt").write_text("someone/clip2\n")
  (lists / "test.txt").write_text("gone/2\n")
  report = run(videos, output, lists)
  expected = {
    "not_listed": [f"someone/clip{i}" for i in (3, 4, 5)],
    "not_found": ["gone/1", "gone/2"],
    "records": {"train": 2, "val": 1},
  }
  written = report_file(output)
  for name, value in expected.items():
    assert getattr(report, name) == value and written[name] == value
  assert {s: set(r) for s, r in records(output).items()} == {
    "train": {"someone/clip0", "someone/clip1"},
    "val": {"someone/clip2"},
  }
  for path in lists.iterdir():
    path.write_text("gone/1\n" if path.name == "train.txt" else "")
  with pytest.raises(prepare.PrepareError, match="none of the 6 sources"):
    run(videos, output, lists)


# --- TensorFlow --------------------------------------------------------------

_WITHOUT_TENSORFLOW = """
import sys
from data_prep import clip_store, clips, prepare
from w2l_jax import dataset

videos, output = sys.argv[1:]
settings = clips.Settings(image_size=24)
job = clip_store.Job(
  videos, "someone/clip5.mp4", "someone/clip5", settings, f"{output}/clips"
)
status = clip_store.make_clip(job)
assert status["reason"] is None, status
directory = prepare.pack({"train": [f"{job.path}.npz"]}, settings, output)
split = dataset.Split(directory, "train")
assert dataset.decode_frames(split[0]).shape == (25, 24, 24, 3)
assert dataset.text(split[0]["source"]["file"]) == "someone/clip5.mp4"
loaded = [m for m in sys.modules if m.split(".")[0] == "tensorflow"]
sys.exit(f"imported: {loaded}" if loaded else 0)
"""


def test_tensorflow_is_never_imported(video_folder, tmp_path):
  # One that can be imported, so that an attempt shows where none is installed.
  (tmp_path / "path" / "tensorflow").mkdir(parents=True)
  (tmp_path / "path" / "tensorflow" / "__init__.py").write_text(
    "import os\nos.write(2, b'TensorFlow was imported')\n"
  )
  result = subprocess.run(
    [
      sys.executable,
      "-c",
      _WITHOUT_TENSORFLOW,
      str(video_folder),
      str(tmp_path / "data"),
    ],
    cwd=REPOSITORY,
    env={**os.environ, "PYTHONPATH": str(tmp_path / "path")},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert "TensorFlow was imported" not in result.stderr
