"""A served page for tests: the real command, in a process of its own."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import conftest
import jax

from w2l_jax import weight_files


def write_checkpoint(path) -> None:
  """Writes a tiny generator that has learnt nothing: it draws grey."""
  syncer = conftest.grey_syncer()
  weight_files.save_safetensors(
    str(path), jax.device_get(syncer.variables), syncer.config
  )


class Server:
  """A page that is served.

  Attributes:
    address: of the page.
    process: that serves it.
    home: all that it may write is below; its temporary folder is in home/tmp.
  """

  def __init__(self, home, *flags):
    """Starts it, and waits until it answers."""
    self.home = home
    (home / "tmp").mkdir()
    checkpoint = home / "tiny.safetensors"
    write_checkpoint(checkpoint)
    self._log = open(home / "log.txt", "w+")  # noqa: SIM115 (closed by stop)
    self.process = subprocess.Popen(
      [
        sys.executable, "-m", "launch.web", f"--checkpoint={checkpoint}",
        "--port=0", "--max_reading_seconds=300", *flags,
      ],
      cwd=home,
      env=os.environ
      | {
        "PYTHONPATH": str(conftest.REPOSITORY),
        "TMPDIR": str(home / "tmp"),
        "HOME": str(home),
        "PYTHONUNBUFFERED": "1",
      },
      stdout=self._log,
      stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while True:
      said = self.said()
      if "open http" in said:
        break
      assert self.process.poll() is None and time.monotonic() < deadline, said
      time.sleep(0.2)
    self.address = said.split("open ", 1)[1].split()[0]

  def said(self) -> str:
    """All that it has printed."""
    with open(self.home / "log.txt") as f:
      return f.read()

  def files(self) -> list[str]:
    """All files below home but its checkpoint and log."""
    return sorted(
      str(f.relative_to(self.home))
      for f in self.home.rglob("*")
      if f.is_file()
      and f.name not in ("tiny.safetensors", "tiny.json", "log.txt")
    )

  def memory(self) -> int:
    """Bytes of its resident memory."""
    with open(f"/proc/{self.process.pid}/statm") as f:
      return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

  def children(self) -> list[str]:
    """Commands of the processes that it has started and that still live."""
    found = []
    for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
      for child in (task / "children").read_text().split():
        with contextlib.suppress(OSError):
          command = pathlib.Path(f"/proc/{child}/cmdline").read_text()
          # Python's own, which lives as long as its parent.
          if "resource_tracker" not in command:
            found.append(command)
    return found

  def stop(self) -> int:
    """Asks it to end; returns its exit status."""
    self.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
      self.process.wait(60)
    self.process.kill()
    self._log.close()
    return self.process.wait()
