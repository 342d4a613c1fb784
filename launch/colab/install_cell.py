"""The first code cell of every notebook; sync.py copies it from here."""

# %%
# Installs the project, unless it is there. The jax and numpy that are installed
# already stay as they are, because they fit this machine's GPU or TPU.
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import tempfile

REPOSITORY = "https://github.com/OWNER/w2l_jax"


def install():
  here = pathlib.Path.cwd()
  folders = [here / "w2l_jax", here, *here.parents]
  checkouts = [f for f in folders if (f / "w2l_jax" / "version.py").exists()]
  if checkouts:  # This notebook was opened from a checkout, or has run before.
    checkout = checkouts[0]
  else:
    checkout = folders[0]
    subprocess.run(["git", "clone", "--depth=1", REPOSITORY, checkout], check=1)
  os.chdir(checkout)
  sys.path.insert(0, str(checkout))
  os.makedirs("runs", exist_ok=True)  # For all that is made.
  installed = {d.name: d.version for d in importlib.metadata.distributions()}
  if "w2l_jax" in installed:
    return
  kept = ("jax", "numpy", "libtpu", "nvidia", "torch")
  with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
    for name, version in installed.items():
      if name.startswith(kept):
        print(f"{name}=={version}", file=constraints, flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    what = ["--editable", ".[demo]", "--constraint", constraints.name]
    subprocess.run([*pip, *what], check=True)


install()
