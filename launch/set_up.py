"""Makes the environment, or says in one sentence why it cannot; for make.

  python3 launch/set_up.py VENV PACKAGE

Runs on any Python 3, before anything is installed.
"""

import os
import shutil
import subprocess
import sys

NEEDED_GB = 3
# What pip says, and what that means; the first that matches.
MEANINGS = (
  (
    ("No space left on device",),
    "the disk is full; make room, or choose another place: make VENV=DIR",
  ),
  (
    ("connection broken", "Connection", "name resolution", "ReadTimeout"),
    "no pip index can be reached; check the network, or name a reachable index "
    "in PIP_INDEX_URL",
  ),
  (
    ("No matching distribution found for espeakng-loader",),
    "the speech synthesiser (espeakng-loader) has no wheel for this platform; "
    "it has for Linux (glibc), macOS and Windows on x86-64 and ARM64; all but "
    "the demo works without: pip install .",
  ),
)


def check(venv):
  """Checks the version of Python and the space for `venv`."""
  if sys.version_info < (3, 11):
    sys.exit(
      "error: Python %d.%d found, 3.11 or newer is needed; give one: "
      "make PYTHON=python3.11" % sys.version_info[:2]
    )
  folder = os.path.dirname(os.path.abspath(venv))
  free = shutil.disk_usage(folder).free / 2**30
  if free < NEEDED_GB and not os.path.isdir(venv):
    sys.exit(
      "error: %s has %.1f GB free, %d GB are needed; make room, or choose "
      "another place: make VENV=DIR" % (folder, free, NEEDED_GB)
    )


def meaning(said):
  """Returns one sentence for what a failed pip wrote."""
  for words, sentence in MEANINGS:
    if any(word in said for word in words):
      return sentence
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  errors = [line for line in lines if line.startswith("ERROR")] or lines
  return "pip failed: %s" % (errors[-1] if errors else "it did not say why")


def main(venv, package):
  """Makes `venv` and installs `package` there, editable."""
  check(venv)
  python = os.path.join(venv, "bin", "python")
  for command, failed in (
    (
      [sys.executable, "-m", "venv", venv],
      "%s cannot make environments (Debian: apt install python3-venv)"
      % sys.executable,
    ),
    ([python, "-m", "pip", "install", "--quiet", "--editable", package], None),
  ):
    print(" ".join(command), flush=True)
    done = subprocess.run(command, stderr=subprocess.PIPE)
    said = done.stderr.decode(errors="replace")
    if done.returncode:
      sys.stderr.write(said)
      sys.exit("error: %s" % (failed or meaning(said)))


if __name__ == "__main__":
  main(*sys.argv[1:])
