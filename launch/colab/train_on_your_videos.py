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
# Train on your own videos

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/w2l_jax/blob/main/launch/colab/train_on_your_videos.ipynb)

From a folder of talking people to a network that draws their mouths: prepare
the videos, train an *expert* that judges whether lips and speech belong
together, train a *generator* that must convince it, lip-sync.

**What do I need?** Videos of one visible face each, a few seconds long, in
which lips and sound fit: five minutes in all show that it works, some hours of
many people make a network for people it has never seen. Any format will do, and
any folders below the one you name. Without any, the notebook paints talking
faces itself. In your Drive, a minute of video takes some 16 MB once it is
prepared, and the two small networks together some 200 MB.

**How long does it take?** With the painted faces 6 to 14 minutes on Colab's
CPU, less on a GPU or TPU (*Runtime → Change runtime type*; nothing else is
different). With your own: an hour at least, on a GPU; below you see how far it
is, and you may stop at any time.

**What if Colab disconnects?** Everything that takes time is kept in a folder of
your Google Drive. Open the notebook again and run all cells from the top: each
one sees what is done and goes on where it was, at the last checkpoint. The
result is the same, to the bit, as without the interruption.
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
# A folder of videos, as "/content/drive/MyDrive/my_videos"; "": painted ones.
VIDEOS = ""
# The folder in your Drive (outside Colab: in runs/) that keeps everything.
KEPT = "w2l_jax"
# "small" is a quarter of the channels, and what a CPU can train; "" is the full
# network, for a GPU or TPU; "tiny" only shows that all parts run.
SIZE = "small"
# Training steps; None is what the experiment has.
EXPERT_STEPS = None
GENERATOR_STEPS = None
# The share of clips that are held back for each of val and test. With fewer than
# fifty clips take more: 0.2.
HELD_BACK = 0.1
# Painted people for training, validation and test.
PAINTED = (40, 4, 6)

# %%
from launch import notebook

home = notebook.kept_folder(KEPT)
print(f"all that is made is kept in {home}")

# %% [markdown]
"""
## 2. Prepare the videos

Every file of the folder is tried: its frames are brought to 25 a second, its
face is found and followed, its sound becomes a spectrogram. What cannot be used
(no face, no sound, damaged) is set aside with the reason.

Some clips are never trained on: *val* tells during training whether the network
learns or only remembers, *test* is for the end. Which clip goes where is
settled by its name, so more videos later change nothing for those that are
there. All three need some: if one is missing in the table below, raise
`HELD_BACK` and run this again before you train.
"""

# %%
from configs import expert_grid, expert_rendered, gan_grid, generator_rendered
from data_prep import clips, prepare, rendered_corpus

if VIDEOS:
  videos, splits = VIDEOS, None
  expert, generator = expert_grid.get_config(SIZE), gan_grid.get_config(SIZE)
else:
  spec = rendered_corpus.CorpusSpec(identities=PAINTED, clips=2)
  rendered_corpus.render(spec, "runs/painted", os.cpu_count())
  videos, splits = "runs/painted/videos", "runs/painted/splits"
  expert = expert_rendered.get_config(SIZE)
  generator = generator_rendered.get_config(SIZE)

report = prepare.prepare(
  videos,
  f"{home}/data",
  clips.Settings(image_size=expert.image_size),
  splits_folder=splits,
  val_fraction=HELD_BACK,
  test_fraction=HELD_BACK,
  workers=os.cpu_count(),
)
notebook.Table(["split", "clips"], report.records.items())

# %% [markdown]
"""
Look at the report before you train; it takes a minute and may save hours. Are
the faces whole in the strips, chin included? Is it the person who speaks? Are
reasons below *Set aside* that you can mend?
"""

# %%
notebook.show_page(f"{home}/data/report.html")
data = notebook.local_copy(f"{home}/data")

# %% [markdown]
"""
## 3. Train the expert

It sees a fifth of a second of lips and of sound and says whether they belong
together. The curves below are drawn anew every few seconds.

- `eval/two_way_accuracy`: how often it tells the right faces from others of the
  same clip; 0.5 is a coin. It moves first. Above 0.8 it is good enough to teach
  a generator something.
- `train/loss`: with your own videos it starts near 0.69 and may stay there for a
  while before it falls; with the painted ones (another loss) it starts near 2.8.

**It stays at chance?** Then lips and sound do not fit (`python -m
launch.filter_sync` finds and mends that), or there are too few videos, or
patience is short. A warning below says what the figures show.

The first step takes up to a minute: everything is compiled for this machine. The
stop button of the cell saves first. Run the cell again, and it goes on.

**Must I train one?** If you have an expert already, skip this cell and write its
folder as `generator.expert_checkpoint` in the next.
"""

# %%
from w2l_jax import train_expert

expert.data.dir = data
expert.train.num_steps = EXPERT_STEPS or expert.train.num_steps
with notebook.live(f"{home}/expert", ["train/loss", "eval/two_way_accuracy"]):
  train_expert.train_and_evaluate(expert, f"{home}/expert")

# %% [markdown]
"""
## 4. Train the generator

It sees a face whose lower half is blacked out, another picture of the same
person, and the sound, and draws the lower half. It is told how far it is from
the truth (`loss_l1`) and what the expert thinks of it (`loss_sync`).

Below the curves is the newest sheet of samples, one face a row: the reference,
what it was given, what it drew, the truth.

- `eval/l1` falls all the time: pictures become sharper.
- `eval/loss_sync` falls once the expert has a say. Well below
  `eval/loss_sync_real`, the same figure of real video, it would mean that the
  expert was fooled, not that lips are better.

A generator belongs to the expert that it began with. To train the expert further
afterwards, set `KEPT` to another name.
"""

# %%
from w2l_jax import train_generator

generator.data.dir = data
generator.expert_checkpoint = f"{home}/expert"
generator.train.num_steps = GENERATOR_STEPS or generator.train.num_steps
shown = ["train/loss_l1", "eval/l1", "eval/loss_sync"]
with notebook.live(f"{home}/generator", shown):
  train_generator.train_and_evaluate(generator, f"{home}/generator")

# %% [markdown]
"""
## 5. Lip-sync

A face of the folder says what another clip of it says. For files of your own,
give their paths here, or open *Lip-sync a video* with this `CHECKPOINT`:
"""

# %%

import w2l_jax

usable = sorted(
  str(f)
  for f in pathlib.Path(videos).rglob("*")
  if f.is_file() and str(f.relative_to(videos)) not in report.set_aside
)
face, speech = usable[-1], usable[len(usable) // 2]
syncer = w2l_jax.LipSyncer.from_checkpoint(f"{home}/generator")
result = f"{home}/lipsync.mp4"
print(syncer.write(face, speech, result, progress=True).report())
notebook.play(face, result)
print(f"CHECKPOINT = {home + '/generator'!r}")

# %% [markdown]
"""
*Left: before. Right: the same face with the other clip's speech.*

## 6. How good is it?

Figures of the clips that were never trained on. *copied* is what one gets for
free, by leaving the reference's mouth where it is: the generator should be on
the better side of it.
"""

# %%
from w2l_jax import metrics

last = metrics.read_metrics(f"{home}/generator")[-1]
notebook.Table(
  ["val clips", "generated", "copied"],
  [
    [name, last[f"eval/{name}"], last[f"eval/{name}_copied"]]
    for name in ("lower_l1", "lower_psnr", "lower_ssim", "loss_sync")
  ],
)

# %% [markdown]
"""
Smaller is better for `lower_l1` (how far the lower half is from the truth) and
`loss_sync`, larger for `lower_psnr` and `lower_ssim` (how like it is).

**It is blurred, or the mouth hardly moves?** More people and more steps are what
helps most: set `GENERATOR_STEPS` higher *and* `KEPT` to another name, because a
finished run's learning rate has come down to zero. **Out of memory?** Set
`generator.data.batch_size = 4` in the cell that trains. **Which settings are
there?** `print(generator)` shows all; `configs/` says why they are as they are.
**The real measure** is `python -m launch.evaluate`, with LSE-D, LSE-C and a
report.
"""
