"""Runs `python -m launch.NAME`, each in a process of its own, quickly.

The processes are forked from one that has the libraries imported already: that
is most of the time that such a command takes.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile

from conftest import REPOSITORY

_PRELOAD = ["w2l_jax.train_generator", "data_prep.prepare", "scipy.signal"]
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(_PRELOAD)


def _command(name: str, args: list[str], out: str, err: str) -> None:
  for path, fd in ((out, 1), (err, 2)):
    file = os.open(path, os.O_WRONLY)
    os.dup2(file, fd)
    os.close(file)
  os.chdir(REPOSITORY)
  sys.argv = [name, *args]
  runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)


def run(name: str, *args, timeout: float = 280) -> subprocess.CompletedProcess:
  """Runs a command from the checkout; returns its status and what it said."""
  with tempfile.TemporaryDirectory() as folder:
    out, err = (os.path.join(folder, n) for n in ("out", "err"))
    for path in (out, err):
      open(path, "x").close()
    process = _processes.Process(
      target=_command, args=(name, [str(a) for a in args], out, err)
    )
    process.start()
    process.join(timeout)
    if process.is_alive():
      process.kill()
      process.join()
    said = []
    for path in (out, err):
      with open(path, encoding="utf-8") as f:
        said.append(f.read())
    return subprocess.CompletedProcess([name, *args], process.exitcode, *said)
