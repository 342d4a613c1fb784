"""Says in one sentence why this machine cannot be set up; used by the Makefile.

Runs on any Python 3, before anything is installed.
"""

import os
import shutil
import sys

NEEDED_GB = 3


def main(venv):
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


if __name__ == "__main__":
  main(sys.argv[1])
