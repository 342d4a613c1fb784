"""What a machine that cannot be set up is told: one sentence, no traceback."""

import os
import subprocess
import sys

import pytest

from launch import set_up


@pytest.mark.parametrize(
  ("free_gb", "version", "message"),
  [
    (1, (3, 11), "1.0 GB free, 3 GB are needed"),
    (100, (3, 10), "Python 3.10 found, 3.11 or newer is needed"),
  ],
)
def test_machines_that_cannot_be_set_up(free_gb, version, message, tmp_path):
  code = (
    "import sys, shutil, runpy\n"
    f"sys.version_info = {version}\n"
    "shutil.disk_usage = lambda _: "
    f"shutil._ntuple_diskusage(0, 0, {free_gb} * 2**30)\n"
    f"sys.argv = ['x', {str(tmp_path / 'venv')!r}, '.']\n"
    "runpy.run_path('launch/set_up.py', run_name='__main__')\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert done.returncode == 1
  assert message in done.stderr
  assert len(done.stderr.strip().splitlines()) == 1
  assert not os.listdir(tmp_path)


def pip_says(tmp_path, requirement, **environment):
  """What pip writes where it cannot install a requirement."""
  plain = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
  done = subprocess.run(
    [
      sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
      "--only-binary=:all:", "--platform=win32", f"--target={tmp_path / 'to'}",
      requirement,
    ],
    env={**plain, "PIP_CONFIG_FILE": os.devnull, **environment},
    capture_output=True,
    text=True,
    check=False,
  )  # fmt: skip
  assert done.returncode
  return done.stderr


def test_no_network(tmp_path):
  said = pip_says(
    tmp_path,
    "espeakng-loader",
    PIP_INDEX_URL="http://127.0.0.1:9/simple",
    PIP_RETRIES="1",
  )
  assert set_up.meaning(said).startswith("no pip index can be reached")


def test_no_wheel_of_the_synthesiser(tmp_path):
  """An index that has none for the platform."""
  (tmp_path / "index").mkdir()
  said = pip_says(
    tmp_path,
    "espeakng-loader",
    PIP_NO_INDEX="1",
    PIP_FIND_LINKS=str(tmp_path / "index"),
  )
  assert "has no wheel for this platform" in set_up.meaning(said)


def test_other_failures():
  said = "WARNING: a\nERROR: No space left on device\n\n"
  assert set_up.meaning(said).startswith("the disk is full")
  said = "ERROR: first\nERROR: wheel is damaged\nnote: more\n"
  assert set_up.meaning(said) == "pip failed: ERROR: wheel is damaged"
  assert set_up.meaning("") == "pip failed: it did not say why"


def test_an_environment_is_made(tmp_path, monkeypatch, capfd):
  """And pip's failure ends in its meaning."""
  monkeypatch.setattr(set_up, "check", lambda venv: None)
  with pytest.raises(SystemExit, match="^error: pip failed: ERROR: "):
    set_up.main(str(tmp_path / "venv"), str(tmp_path / "nothing"))
  assert (tmp_path / "venv" / "bin" / "python").exists()
  assert "pip install" in capfd.readouterr().out
