"""The command launch.prepare_data as a user meets it."""

import json
import subprocess

import commands
from conftest import babble, talking_frames, write_video


def prepare_data(*args: str) -> subprocess.CompletedProcess:
  return commands.run("prepare_data", *args)


def check_error(result: subprocess.CompletedProcess, *words: str) -> None:
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: ")
  for word in words:
    assert word in line
  assert result.stdout == ""


def test_no_such_folder(tmp_path):
  folder = tmp_path / "nowhere"
  result = prepare_data(f"--input={folder}", f"--output={tmp_path / 'data'}")
  check_error(result, str(folder), "no such folder", "--input")
  assert not list(tmp_path.iterdir())


def test_an_empty_folder(tmp_path):
  (tmp_path / "videos").mkdir()
  result = prepare_data(
    f"--input={tmp_path / 'videos'}", f"--output={tmp_path / 'data'}"
  )
  check_error(result, str(tmp_path / "videos"), "no files")


def test_a_good_run_tells_what_it_kept(tmp_path):
  videos, output = tmp_path / "videos", tmp_path / "data"
  videos.mkdir()
  write_video(videos / "good.mp4", talking_frames(25), babble(1.0))
  (videos / "bad.mp4").touch()
  (videos / "worse.mp4").touch()
  args = [
    f"--input={videos}",
    f"--output={output}",
    "--image_size=24",
    "--val_fraction=0",
    "--test_fraction=0",
    "--workers=1",
  ]
  result = prepare_data(*args)
  assert result.returncode == 0, result.stderr
  assert "Traceback" not in result.stderr
  lines = result.stdout.splitlines()
  assert "made 1 clip(s), 25 frames" in result.stdout
  assert (
    "kept 1 clip(s) (0 from earlier runs), set aside 2; records: train 1"
    in lines
  )
  assert any(
    line.startswith("set aside: bad.mp4, worse.mp4: ") and "empty" in line
    for line in lines
  )
  assert f"report: {output / 'report.json'}" in lines
  report = json.loads((output / "report.json").read_text())
  assert report["made"] == 1 and len(report["set_aside"]) == 2
  folder = output / "lipsync_dataset" / "face24" / "1.0.0"
  assert (folder / "index-train.npz").exists()
  # Once more: nothing is made.
  result = prepare_data(*args)
  assert result.returncode == 0, result.stderr
  assert (
    "kept 1 clip(s) (1 from earlier runs), set aside 2; records: train 1"
    in result.stdout.splitlines()
  )
  assert "made" not in result.stdout
