"""The benchmark's sides run, agree, and are put into a table."""

import json
import subprocess
import sys

import pytest


@pytest.mark.parametrize("arguments", [["--against=eager,onnx"], []])
def test_benchmark(tmp_path, arguments):
  """Two operations with PyTorch's counterparts, in narrow networks."""
  pytest.importorskip("onnxruntime" if arguments else "torch")
  run = subprocess.run(
    [
      sys.executable,
      "-m",
      "launch.benchmark",
      f"--operations=machine,{'generator' if arguments else 'expert_step'}",
      f"--outdir={tmp_path}",
      "--width=0.03125",
      "--batch_size=4",
      "--rounds=2",
      "--seconds=0.01",
      *(arguments or ["--against=eager"]),
    ],
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert run.returncode == 0, run.stderr[-2000:]
  with open(tmp_path / "results.json") as f:
    found = json.load(f)
  assert found["machine"]["torch"]
  sides = found["results"][1]["sides"]
  assert sides["eager"]["difference"] < 1e-4
  assert sides["eager"]["ratio"] > 0
  assert ("onnx" in sides) == bool(arguments)
  assert abs(sum(sides["jax"]["profile"].values()) - 1) < 0.5
  assert sides["jax"]["facts"]["warm_compile_seconds"] > 0
  assert (tmp_path / "table.md").read_text() in run.stdout


def test_words_are_checked():
  run = subprocess.run(
    [sys.executable, "-m", "launch.benchmark", "--operations=everything"],
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert run.returncode != 0
  assert "expected some of machine,generator" in run.stderr
