"""The demo's report: one HTML page that needs no network and no server."""

import glob
import html
import os
import string

import matplotlib.pyplot as plt

from launch import html_page
from w2l_jax import metrics, windows

HEADLINES = (
  "expert_accuracy",
  "mouth_correlation",
  "mouth_correlation_input",
  "sync_loss_generated",
  "sync_loss_real",
)
# What each figure of the table means.
_MEANINGS = {
  "expert_accuracy": "how often the expert tells a face window that belongs to "
  "the speech from one of the same clip that does not; unseen faces and "
  "sentences, windows with speech; 0.5 is chance",
  "expert_accuracy_all_windows": "the same, silent windows included",
  "expert_balanced_accuracy": "of those pairs, at the threshold chosen on val",
  "expert_loss": "cross-entropy of the cosine; 0.69 is chance",
  "mouth_correlation": "generated mouth opening against the true one of the "
  "driving speech, mean over the pairs",
  "mouth_correlation_input": "the same of the input video, whose mouth says "
  "something else",
  "sync_loss_generated": "the expert's loss on generated frames; below real "
  "video's it would mean that the expert was fooled",
  "sync_loss_real": "the expert's loss on real frames",
  "sync_loss_copied": "the expert's loss on the reference frame copied",
  "lower_l1": "mean absolute error of the lower half, pictures in [0, 1]",
  "lower_l1_copied": "the same of the reference frame copied",
  "lower_psnr": "peak signal-to-noise ratio of the lower half, dB",
  "lower_psnr_copied": "the same of the reference frame copied",
  "lower_ssim": "structural similarity of the lower half",
  "lower_ssim_copied": "the same of the reference frame copied",
  "pairs": "number of pairs of a face and a driving sentence",
}
_SAMPLES_SHOWN = 4

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>w2l_jax demo</title>
<link rel="icon" href="data:,">
<style>
$style</style>
</head>
<body>
<h1>A face says a sentence it never said</h1>
<p>Everything on this page was made by one command on this machine:
$clips rendered talking faces, an expert that judges lip-sync, a generator that
draws mouths, and this clip of a face and a sentence that neither was trained
on.</p>
<div class="head">$headlines</div>

<h2>Before and after</h2>
<p><button id="both">Play both</button></p>
<div class="row">
<figure>
<video id="before" src="input.mp4" controls muted preload="auto"></video>
<figcaption>Before: the video of $face with the speech of
$speech.</figcaption></figure>
<figure>
<video id="after" src="lipsync.mp4" controls preload="auto"></video>
<figcaption>After: the same, lip-synced (with sound).</figcaption></figure>
</div>

<h2>How far the mouth is open</h2>
$tracks
<p>Measured on the pixels of the face crops, scaled to the same mean and
deviation; the truth is what the renderer drew for the driving speech.</p>

<h2>Training</h2>
<div class="row"><figure>$expert_curve
<figcaption>Stage 1, the expert: loss.</figcaption></figure>
<figure>$generator_curve
<figcaption>Stage 2, the generator: L1 and sync loss.</figcaption></figure>
</div>
<h2>What the generator drew while it learnt</h2>
<p>In each picture, from left to right: reference, input with the mouth masked,
generated, truth. Faces of the validation split.</p>
<div class="row">$samples</div>

<h2>Figures</h2>
<table><tr><th>figure</th><th>value</th><th>what it is</th></tr>$figures</table>

<h2>Time</h2>
<table><tr><th>step</th><th>seconds</th></tr>$seconds</table>
<p>$machine</p>
<script>
const before = document.getElementById("before");
const after = document.getElementById("after");
document.getElementById("both").addEventListener("click", () => {
  before.currentTime = after.currentTime = 0;
  before.play(); after.play();
});
</script>
</body>
</html>
""")


def _tracks_plot(pair: dict) -> str:
  figure, axes = plt.subplots(figsize=(9, 3))
  styles = {
    "truth": ("black", "-", 2.2, "truth of the driving speech"),
    "generated": (
      "tab:blue", "-", 1.8, f"result, r = {pair['correlation']:.2f}"
    ),
    "input": (
      "tab:red", ":", 1.4,
      f"unsynced input, r = {pair['correlation_input']:.2f}",
    ),
  }  # fmt: skip
  for name, (colour, line, width, label) in styles.items():
    track = pair["tracks"][name]
    mean = sum(track) / len(track)
    deviation = (sum((v - mean) ** 2 for v in track) / len(track)) ** 0.5 or 1
    axes.plot(
      [i / windows.FPS for i in range(len(track))],
      [(v - mean) / deviation for v in track],
      color=colour,
      linestyle=line,
      linewidth=width,
      label=label,
    )
  axes.set_xlabel("seconds")
  axes.set_ylabel("opening, standardised")
  axes.legend(
    frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1)
  )
  axes.spines[["top", "right"]].set_visible(False)
  return html_page.svg(figure)


def _curve(workdir: str, names: dict[str, str]) -> str:
  lines = metrics.read_metrics(workdir)
  figure, axes = plt.subplots(figsize=(5, 3))
  for name, label in names.items():
    points = [(m["step"], m[name]) for m in lines if name in m]
    if points:
      axes.plot(
        *zip(*points, strict=True),
        marker="o" if name.startswith("eval/") else None,
        label=label,
      )
  axes.set_xlabel("step")
  axes.set_yscale("log")
  axes.legend(frameon=False)
  axes.grid(alpha=0.3, which="both")
  axes.spines[["top", "right"]].set_visible(False)
  return html_page.svg(figure)


def write(workdir: str, summary: dict, pairs: list[dict]) -> None:
  """Writes workdir/report.html beside input.mp4 and lipsync.mp4.

  Args:
    workdir: of the demo, with the runs expert/ and generator/.
    summary: what summary.json holds.
    pairs: of launch.demo.mouth_tracks; the first one is plotted.
  """
  grids = sorted(
    glob.glob(os.path.join(workdir, "generator", "samples", "grid_*.png"))
  )
  # The first, the last, and some between.
  count = min(_SAMPLES_SHOWN, len(grids))
  chosen = sorted(
    {round(i * (len(grids) - 1) / max(1, count - 1)) for i in range(count)}
  )
  samples = "".join(
    f'<figure><img class="samples" src="{os.path.relpath(grids[i], workdir)}" '
    f'alt="samples"><figcaption>step {int(grids[i][-12:-4])}</figcaption>'
    "</figure>"
    for i in chosen
  )
  machine = summary["machine"]
  total = sum(summary["seconds"].values())
  page = _PAGE.substitute(
    style=html_page.STYLE,
    clips=summary["clips"],
    face=html.escape(summary["face"]),
    speech=html.escape(summary["speech"]),
    headlines="".join(
      f"<div><b>{summary[name]:.2f}</b>{name.replace('_', ' ')}</div>"
      for name in HEADLINES
    ),
    tracks=_tracks_plot(pairs[0]),
    expert_curve=_curve(
      os.path.join(workdir, "expert"),
      {"train/loss": "training", "eval/loss": "validation"},
    ),
    generator_curve=_curve(
      os.path.join(workdir, "generator"),
      {
        "train/loss_l1": "L1, training",
        "eval/l1": "L1, validation",
        "eval/loss_sync": "sync, validation",
      },
    ),
    samples=samples,
    figures=html_page.rows(
      (
        name,
        f"{summary[name]:.3f}"
        if isinstance(summary[name], float)
        else summary[name],
        meaning,
      )
      for name, meaning in _MEANINGS.items()
    ),
    seconds=html_page.rows(
      [
        *((k, f"{v:.0f}") for k, v in summary["seconds"].items()),
        ("all", f"{total:.0f}"),
      ]
    ),
    machine=html.escape(
      f"{machine['device']}, {machine['cpu_count']} CPU cores, "
      f"{machine['platform']}, Python {machine['python']}, JAX {machine['jax']}"
    ),
  )
  html_page.write(os.path.join(workdir, "report.html"), page)
