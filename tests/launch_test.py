"""The command lines, each as a process of its own."""

import json
import os
import shutil

import pytest
from commands import run

from w2l_jax import video


def error_of(module, *args):
  """Runs a launcher that must fail without a traceback; returns its message."""
  done = run(module, *args)
  err = done.stderr
  assert done.returncode == 1, err
  assert "Traceback" not in err
  lines = [line for line in err.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1, err
  return err[err.index("error: ") :]


def test_train_says_what_is_missing(data_dir, tmp_path):
  config = "--config=configs/expert_grid.py:tiny"
  workdir = f"--workdir={tmp_path / 'run'}"
  assert "config.data.dir is not set" in error_of("train", config, workdir)
  message = error_of(
    "train", config, workdir, f"--config.data.dir={tmp_path / 'nowhere'}"
  )
  assert "nowhere" in message and "launch.prepare_data" in message
  message = error_of(
    "train",
    "--config=configs/gan_grid.py:tiny",
    workdir,
    f"--config.data.dir={data_dir}",
  )
  assert "config.expert_checkpoint is not set" in message
  assert not (tmp_path / "run").exists()


def test_a_misspelt_field_is_named(data_dir, tmp_path):
  done = run(
    "train",
    "--config=configs/expert_grid.py:tiny",
    f"--config.data.dir={data_dir}",
    "--config.optimizer.learning_rte=1",
    f"--workdir={tmp_path / 'run'}",
  )
  assert done.returncode != 0
  assert "learning_rte" in done.stderr and "learning_rate" in done.stderr
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "run").exists()


def test_a_misspelt_config_is_named(tmp_path):
  done = run(
    "train", "--config=configs/expert_gird.py", f"--workdir={tmp_path / 'run'}"
  )
  assert done.returncode != 0
  assert "expert_gird" in done.stderr
  assert "Traceback" not in done.stderr


def test_evaluate_expert(expert_run, tmp_path):
  out = tmp_path / "expert"
  done = run("evaluate", f"--checkpoint={expert_run[0]}", f"--outdir={out}")
  assert done.returncode == 0, done.stderr
  report = json.loads((out / "metrics.json").read_text())
  assert report["split"] == "test" and report["clips"] == 1
  assert report["step"] == 4 and report["scored"] == 1
  assert 0 <= report["eval/two_way_accuracy"] <= 1
  assert "two_way_accuracy" in done.stdout
  assert "not measured: syncnet: no weights" in done.stdout
  assert set(report["summary"]["expert_lse_d"]) == {"real"}
  assert len(report["curves"]["expert_distance"]["real"]) == 31
  assert (out / "clips.csv").read_text().startswith("clip,expert_similarity/")
  assert "Not scored" in (out / "report.html").read_text()


def test_evaluate_generator(gan_run, data_dir, tmp_path):
  out, pairs = tmp_path / "gan", tmp_path / "pairs.txt"
  pairs.write_text("someone/clip0 someone/clip1\nsomeone/clip9 someone/clip1\n")
  done = run(
    "evaluate",
    f"--checkpoint={gan_run[0]}",
    "--split=train",
    f"--outdir={out}",
    f"--config.pairs={pairs}",
    f"--config.syncnet={tmp_path / 'none.model'}",
  )
  assert done.returncode == 0, done.stderr
  report = json.loads((out / "metrics.json").read_text())
  assert report["eval/lower_l1"] > report["eval/lower_l1_copied"] > 0
  assert "copied" in done.stdout
  assert (out / "samples.png").exists() and (out / "clips" / "0.mp4").exists()
  # The list has audio first.
  assert "clip1 says someone/clip0" in (out / "report.html").read_text()
  assert "someone/clip1 says someone/clip9: no clip" in done.stdout
  assert "none.model: no such file" in report["not_measured"]["syncnet"]


def test_evaluate_videos(expert_run, video_folder, tmp_path):
  """As they are; without a checkpoint of their own."""
  out, videos = tmp_path / "out", tmp_path / "videos"
  videos.mkdir()
  shutil.copy(video_folder / "someone" / "clip5.mp4", videos)
  (videos / "broken.mp4").write_bytes(b"broken")
  done = run(
    "evaluate",
    f"--expert={expert_run[0]}",
    f"--videos={videos}",
    f"--outdir={out}",
  )
  assert done.returncode == 0, done.stderr
  report = json.loads((out / "metrics.json").read_text())
  assert report["scored"] == 1
  assert [f["clip"] for f in report["failures"]] == ["broken.mp4"]
  assert "broken.mp4" in (out / "report.html").read_text()
  assert (out / "clips" / "0.mp4").exists()


@pytest.mark.slow
def test_evaluate_generated_videos(gan_run, video_folder, tmp_path):
  """The whole way: pairs by seed, videos made, faces found again."""
  out = tmp_path / "out"
  done = run(
    "evaluate",
    f"--checkpoint={gan_run[0]}",
    f"--videos={video_folder}",
    f"--outdir={out}",
    "--config.clips=2",
    "--config.seed=1",
  )
  assert done.returncode == 0, done.stderr
  report = json.loads((out / "metrics.json").read_text())
  assert {"generated", "real", "copied", "unsynced"} <= set(
    report["summary"]["expert_lse_d"]
  )
  assert len(list((out / "videos").iterdir())) == 2


def test_evaluate_errors(expert_run, tmp_path):
  message = error_of("evaluate")
  assert "--checkpoint is not set" in message
  out = f"--outdir={tmp_path / 'out'}"
  message = error_of("evaluate", f"--videos={tmp_path / 'none'}", out)
  assert "none: no such folder" in message
  message = error_of("evaluate", f"--videos={tmp_path}", out)
  assert "there is no judge" in message and "--config.syncnet" in message


def test_lipsync(gan_run, video_folder, tmp_path):
  out = tmp_path / "out.mp4"
  clips = video_folder / "someone"
  done = run(
    "lipsync",
    f"--checkpoint={gan_run[0]}",
    f"--face={clips / 'clip5.mp4'}",
    f"--audio={clips / 'clip0.mp4'}",
    f"--outfile={out}",
    "--pads=0,10,0,0",
    "--crop=0,-1,8,248",
    "--faces=1",
    "--loop=ping_pong",
    "--no_face=hold",
    "--silence=closed",
    "--nosmooth",
    f"--preview={tmp_path / 'strip.png'}",
  )
  assert done.returncode == 0, done.stderr
  assert "30 frames, 1.20 s; a face was drawn in 30 of them" in done.stdout
  assert "generate" in done.stdout
  assert next(video.frames_at_rate(out, 25)).shape == (256, 240, 3)
  assert sorted(os.listdir(tmp_path)) == ["out.mp4", "strip.png"]


def test_lipsync_errors(expert_run, gan_run, video_folder, tmp_path):
  clip = video_folder / "someone" / "clip0.mp4"
  good = {
    "checkpoint": gan_run[0],
    "face": clip,
    "audio": clip,
    "outfile": tmp_path / "out.mp4",
  }

  def error(**changes):
    flags = [f"--{k}={v}" for k, v in {**good, **changes}.items()]
    return error_of("lipsync", *flags)

  assert "expected one of 'generator'" in error(checkpoint=expert_run[0])
  assert "no such file" in error(face=tmp_path / "none.mp4")
  assert "there is no folder" in error(outfile=tmp_path / "no" / "out.mp4")
  assert os.listdir(tmp_path) == []
  # A Wav2Lip user's list: the message shows ours.
  done = run(
    "lipsync", *[f"--{k}={v}" for k, v in good.items()], "--pads", "0", "10"
  )
  assert done.returncode != 0 and "--pads=0,10,0,0" in done.stderr
  done = run(
    "lipsync", *[f"--{k}={v}" for k, v in good.items()], "--static", "True"
  )
  assert done.returncode != 0 and "switches have no value" in done.stderr
