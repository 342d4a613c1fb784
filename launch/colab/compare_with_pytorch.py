# ---
# jupyter:
#   jupytext:
#     cell_markers: '"""'
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
"""
# Compare with PyTorch

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/w2l_jax/blob/main/launch/colab/compare_with_pytorch.ipynb)

Is this the same network as Wav2Lip's in PyTorch, and how fast is it? Here you
take PyTorch's weights over, run both side by side, train both for a few steps
on the same batches, and time both on the machine that you have.

The PyTorch networks here are written from the paper, with the layers and names
of the original, so the original's files of weights fit them. The original's code
is not needed.

**What do I need?** PyTorch, which Colab has. (Elsewhere: `pip install
torch==2.13.0`.) Any runtime will do; the comparison takes a few minutes.
"""

# %% tags=["install"]
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

# %% [markdown]
"""
## 1. Settings
"""

# %% tags=["parameters"]
# A generator of the original, as "wav2lip_gan.pth"; "": random weights. These
# are as good for comparing numbers, but what they draw is no face.
CHECKPOINT = ""
# Of all channel counts, where weights are random and of what is timed; 1.0 is
# the original's size.
WIDTH = 1.0
# Frames at a time.
BATCH = 16
# Training steps, of networks of a quarter of that width.
STEPS = 8

# %% [markdown]
"""
## 2. Convert

A `.pth` file becomes a `.safetensors` file that holds the network and its
settings. Reading it needs no PyTorch and runs no code of the file.
"""

# %%
from launch import convert_checkpoint, notebook
from tests.parity import at_a_glance

original = CHECKPOINT or at_a_glance.write_random("runs/random.pth", WIDTH)
converted = "runs/converted.safetensors"
if os.path.exists(converted):
  os.remove(converted)
convert_checkpoint.convert("generator", original, converted)
print(f"{original}: {os.path.getsize(original) / 1e6:.1f} MB")
print(f"{converted}: {os.path.getsize(converted) / 1e6:.1f} MB")

# %% [markdown]
"""
## 3. Draw the same faces

Both get the same faces and the same speech. From above: what PyTorch draws, what
JAX draws, and the difference between them, made so much brighter that it can
be seen.
"""

# %%
from launch import sample

both = at_a_glance.forward(original, converted, sample.FACE, sample.SPEECH)
notebook.show(both.picture())
print(
  f"largest difference {both.largest:.1e} of a range of 1; in the last row it "
  f"is made {both.gain:.0e} times brighter"
)

# %% [markdown]
"""
(Both compute in full single precision here; GPUs and TPUs are quicker and coarser
unless they are asked for it.) Single precision has seven digits, and a sum of a thousand products has some
three digits fewer. A difference of 1e-5 or less is that and nothing else; one
level of a picture's 255 is 4e-3.

## 4. Train both

The same weights, the same batches, the original's losses and optimiser. Stage 1
trains the expert; stage 2, `gan`, the generator and the discriminator: `loss_l1`
is the distance from the truth, `loss_sync` the expert's opinion,
`loss_adversarial` and `loss_discriminator` those of the discriminator.
"""

# %%
for stage in ("expert", "gan"):
  runs = at_a_glance.train(stage, STEPS, WIDTH / 4)
  names = [name for name in runs["JAX"][0] if name != "step"]
  display(notebook.curves(runs, names))
  print(f"{stage}: largest difference, of the loss itself:")
  display(
    notebook.Table(["step", *names], at_a_glance.differences(runs, names))
  )

# %% [markdown]
"""
Why do the differences grow? Rounding differs in the last digit at the first step,
and every step builds on the one before. PyTorch in another order of sums drifts
from itself just as fast; `make compare-torch` measures that, in double precision
too, and shows that mistakes made on purpose are seen.

## 5. How fast?

On this machine's accelerator: frames a second that the generator draws, and that
it is trained on (forward, backward and Adam; L1 loss). The first call, which
compiles, is not counted.
"""

# %%
notebook.Table(
  ["", "device", "draws, frames/s", "trains, frames/s"],
  at_a_glance.benchmark(WIDTH, BATCH),
)

# %% [markdown]
"""
**Only one of them used the GPU?** `device` says what each one ran on. JAX needs
its own CUDA or TPU build, which Colab has; PyTorch cannot use Colab's TPU and
then runs on its CPU. **Slower than you expected?** Small batches do not fill a
GPU: try `BATCH = 128`. On a CPU both should be about equal when drawing, and
PyTorch trains faster.

What is equal, what differs on purpose, and which setting of the original is where:
`docs/REPRODUCING.md`.
"""
