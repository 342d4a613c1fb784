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
# Lip-sync a video

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/w2l_jax/blob/main/launch/colab/lipsync_a_video.ipynb)

A face and a recording go in; the same face saying the recording comes out, as
an ordinary video with sound. This works with a video or with a single photo,
and with speech in any language.

**Which runtime?** Any: CPU, GPU or TPU, without changes. In Colab a GPU is
chosen under *Runtime → Change runtime type*; it makes the drawing some ten to
fifty times faster, and nothing else different.

**How do I run it?** One cell after the other: click a cell, then press
Shift+Enter. After a change, run the changed cell and those below it again.
Nothing you upload leaves the machine that runs this notebook; Colab forgets it,
and all that was made, when the session ends, so download what you want to keep.

**How long does it take?** The first cell takes a minute or two in Colab (pip may
warn about other packages; that does no harm). The rest depends on the network
you choose below. A minute of speech is as much work as a minute of video; there
is no limit to the length.

Only use faces and voices whose owners agree, and tell viewers that what they
see is synthetic. The file that is made says so too, in its metadata.
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
## 1. Choose a network

`CHECKPOINT` names the trained network that draws the mouths:

| `CHECKPOINT` | what that is |
|---|---|
| `"grid-small"` | comes with the package, ready at once. It knows one man of the GRID corpus and his fifty-one words; other faces come out smeared. It is to try this notebook with, on the face and the speech that come with it. |
| `"runs/gan"` | a folder in which you trained one, with *Train on your own videos* |
| `"generator.safetensors"` | one file, as made in the last part of this notebook |
| `"wav2lip_gan.pth"` | PyTorch's file of the original Wav2Lip. It is read as it is; PyTorch is not needed. Its licence forbids commercial use. |

To bring a file into Colab, drag it into the file list on the left; its name is
then its path.
"""

# %% tags=["parameters"]
CHECKPOINT = "grid-small"
# The face and the speech: paths of files, or "upload", which asks for one (in
# Colab); "" takes those that come with grid-small.
FACE = ""
SPEECH = ""
# Whose lips move, where there are several faces: "largest", "central", "all",
# or a number: 1 is the leftmost.
FACES = "largest"
RESULT = "runs/result.mp4"

# %%
import w2l_jax
from launch import notebook, sample
from w2l_jax import face_preview

syncer = w2l_jax.LipSyncer.from_checkpoint(CHECKPOINT)
print(f"{CHECKPOINT}: draws faces of {syncer.config['image_size']} pixels")

# %% [markdown]
"""
## 2. Choose a face and speech

The settings above say which. The face may be a video or a photo; somebody who
looks towards the camera and is not covered works best. The speech may be any file with sound: WAV, MP3, or a
video whose sound is taken. The result will be as long as the speech; a shorter
video starts again from its beginning.
"""

# %%
face = notebook.chosen(FACE, "the face: a video or a photo")
speech = notebook.chosen(SPEECH, "the speech: any file with sound")
face, speech = face or sample.FACE, speech or sample.SPEECH
notebook.play(face, speech)

# %% [markdown]
"""
*On the left the face, on the right the speech that it will say.*

Which face was found? The green box is the one whose lips will move. If that is
the wrong one, set `FACES` above to the number in its box, run that cell again,
and go on here.
"""

# %%
found = face_preview.preview(face, FACES)
print(found)
notebook.show(found.picture, width=320)

# %% [markdown]
"""
## 3. Make the video

The first time, the network is compiled for this machine: seconds on a GPU, up
to a minute on a CPU. The bars then count frames.
"""

# %%
summary = syncer.write(face, speech, RESULT, faces=FACES, progress=True)
print(summary.report())
notebook.play(face, RESULT)

# %% [markdown]
"""
*Left: before. Right: after, with the new speech.*

Is it good? Look at the lips when a sound needs them closed: m, b, p. Then look
at the edge of what was drawn, and at the teeth. With `grid-small` on its own face
the mouth should open and close with the speech; it is soft, without teeth, because
the network is small and was trained for half an hour.

To keep the result:
"""

# %%
notebook.download(RESULT)

# %% [markdown]
"""
## 4. If something is not as you want it

Every choice is a further argument of `write`; these are the ones that people
look for.

| what you see | what to change |
|---|---|
| the wrong face speaks | `faces=2`, `faces="all"` |
| the mouth moves in pauses | `silence="closed"`, or `silence="unchanged"` |
| the video jumps back where it is shorter than the speech | `loop="ping_pong"`, or `loop="freeze"` |
| the original mouth shines through | `reference="first"` |
| chin or lips are cut off | `pads=(0, 10, 0, 0)`: pixels at the top, bottom, left, right |
| no face is found | `detector="haar"`, or `box=(80, 220, 100, 210)`: top, bottom, left, right |
| the video lies on its side | `edit=sources.Edit(rotate=True)` with `from w2l_jax import sources` |
| the file is too large | `crf=28` |

All of them are explained in `help(Options)`:
"""

# %%
from w2l_jax.lip_sync_options import Options

print(Options.__doc__)

# %% [markdown]
"""
For example, a single photo says the same, with closed lips in pauses. (The
photo here is the frame from above.)
"""

# %%
summary = syncer.write(
  found.frame, speech, "runs/photo.mp4", silence="closed", progress=True
)
notebook.play("runs/photo.mp4")

# %% [markdown]
"""
## 5. Keep the network as one file

A trained folder, or PyTorch's file, becomes a `.safetensors` file: one file
that holds the network and all its settings, and no code. Download it, and name
it as `CHECKPOINT` the next time.
"""

# %%
from launch import convert_checkpoint

kept = "runs/generator.safetensors"
if os.path.exists(kept):
  os.remove(kept)
convert_checkpoint.convert("generator", CHECKPOINT, kept)
again = w2l_jax.LipSyncer.from_checkpoint(kept)
print(f"{kept}: {os.path.getsize(kept) / 1e6:.1f} MB")
notebook.download(kept)

# %% [markdown]
"""
**Next:** *Train on your own videos* makes a network that knows your faces. The
same from a terminal: `python -m launch.lipsync --help`; as a page in the
browser: `python -m launch.web`.
"""
