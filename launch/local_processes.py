r"""Trains in several processes on this machine, as a cluster would.

  python -m launch.local_processes --count=2 -- \
    --config=configs/gan_grid.py:small --workdir=runs/gan ...

What follows "--" goes to launch.train.  SIGINT and SIGTERM go to all processes,
which save and stop; a second one ends them; where one fails, the others are
ended.  Every process sees all of the machine's accelerators: this is for CPUs.
"""

import signal
import socket
import subprocess
import sys
import time

from absl import app, flags

from w2l_jax import stop_requests

_COUNT = flags.DEFINE_integer("count", 2, "Processes.", lower_bound=1)
# How long the others may take to notice by themselves that one has failed.
_GRACE_SECONDS = 10


def free_port() -> int:
  """Returns a TCP port that nobody listens on."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def run(count: int, arguments: list[str]) -> int:
  """Runs launch.train in `count` processes; returns the greatest status."""
  port = free_port()
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, "-m", "launch.train"),
        *arguments,
        f"--coordinator=127.0.0.1:{port}",
        f"--num_processes={count}",
        f"--process_id={i}",
      ],
      # A terminal's Ctrl-C reaches them once, by way of this process.
      start_new_session=True,
    )
    for i in range(count)
  ]

  def forward(number, frame):
    del frame
    for process in processes:
      if process.poll() is None:
        process.send_signal(number)

  for number in stop_requests.SIGNALS:
    signal.signal(number, forward)
  failed_at = None
  while any(process.poll() is None for process in processes):
    if failed_at is None and any(process.poll() for process in processes):
      failed_at = time.monotonic()
    if failed_at and time.monotonic() - failed_at > _GRACE_SECONDS:
      for process in processes:
        process.kill()
    time.sleep(0.2)
  return max(abs(process.wait()) for process in processes)


def main(argv):
  """Runs, and leaves with the greatest status."""
  sys.exit(run(_COUNT.value, argv[1:]))


if __name__ == "__main__":
  app.run(main)
