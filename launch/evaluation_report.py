"""launch.evaluate's report: one HTML page that needs no network, no server."""

import html
import json
import os
import string

import matplotlib.pyplot as plt
import numpy as np

from launch import html_page
from w2l_jax import evaluate_sync
from w2l_jax.evaluation.results import VARIANTS, without_nan

_COLOURS = {
  "generated": "tab:blue",
  "reconstructed": "tab:cyan",
  "given": "tab:blue",
  "real": "black",
  "copied": "tab:orange",
  "unsynced": "tab:red",
}
_JUDGES = {
  "expert": "our expert (not SyncNet: these are not the published LSE-D, "
  "LSE-C)",
  "syncnet": "SyncNet",
}
# Of a judge, JUDGE_ before them.
_SYNC_MEANINGS = {
  "similarity": "mean cosine of speech and lips, windows with speech; higher "
  "is better",
  "lse_d": "LSE-D: mean distance of lips from speech; lower is better; "
  "without a shift, or, faithful, at the best of all shifts, where a constant "
  "lag costs nothing",
  "lse_c": "LSE-C: median of the distances over shifts less LSE-D; higher is "
  "better",
  "offset": "frames by which speech comes too early at the best shift",
}
_MEANINGS = {
  "l1": "mean absolute difference from the truth, pictures in [0, 1]",
  "psnr": "peak signal-to-noise ratio, dB",
  "ssim": "structural similarity: Gaussian window of 11, sigma 1.5",
  "lpips": "learned perceptual distance; lower is better",
  "fid": "Fréchet distance of Inception's features from the real set's; lower "
  "is better; depends on the number of pictures",
  "jitter": "mean second difference of the pixels over time; read it beside "
  "the real clip's",
  "mouth_correlation": "of the mouth's opening, measured on pixels, with the "
  "real video's; landmark distances need a detector that is not to be had "
  "offline",
  "mouth_distance": "mean difference of the mouth's opening from the real "
  "video's, in its standard deviations; stands for a landmark distance",
  "frechet_of_expert_features": "Fréchet distance of the expert's features of "
  "lips from the real set's: NOT FID, and not comparable with one",
}

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>w2l_jax evaluation</title>
<link rel="icon" href="data:,">
<style>
$style</style>
</head>
<body>
<h1>Evaluation of $title</h1>
<p>$header</p>
$note
<h2>Figures</h2>
<p>Means over $scored clips or face tracks; in brackets 95 % intervals by
bootstrap over them. $variants</p>
<div class="wide"><table>$summary</table></div>
$caution
<details><summary>What each measure is</summary>
<table>$meanings</table></details>
$windows
<h2>Clips side by side</h2>
$clips
<h2>Judges' scores by shift</h2>
<p>What is laid beside what is moved: at shift 0 lips and speech are as in the
clip, to the right the speech is later than the lips. A judge that knows
lip-sync has its best score at 0 for real clips, and lower ones away from it;
where speech and lips have nothing to do with each other the curve is flat.</p>
$curves
<h2>Can the judges be believed?</h2>
<p>Real clips with their speech moved by some frames to either side, or its
windows shuffled among clips. A score that can be believed gets worse with every
step at first; further off it may swing around the score of what is unrelated:
syllables follow each other in a rhythm. Exchanged for another clip's as it is,
speech is no further off than that where clips speak and pause at the same
times. The faithful LSE-D and LSE-C take the best of all shifts: a lag of up to
$max_shift frames costs them no more than the windows that it takes past the
clip's ends.</p>
$shifts
$rocs
<h2>Not scored</h2>
$failures
<h2>Not measured</h2>
$not_measured
<h2>Every clip</h2>
<p>All columns are in <code>clips.csv</code>.</p>
<details><summary>Show the table</summary>
<div class="wide"><table>$table</table></div></details>
<h2>Protocol</h2>
<pre>$protocol</pre>
</body>
</html>
""")


def _styled(axes, legend: bool = True) -> None:
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(alpha=0.3)
  if legend:
    axes.legend(frameon=False, fontsize="small")


def _figure(svg: str, caption: str) -> str:
  return (
    f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"
  )


def _curves(curves: dict) -> str:
  parts = []
  for judge, name in _JUDGES.items():
    found = []
    for kind, label in (
      ("similarity", "cosine"),
      ("distance", "distance"),
      ("accuracy", "own lips preferred"),
    ):
      by_variant = curves.get(f"{judge}_{kind}")
      if not by_variant:
        continue
      # With silent windows: the real clips alone, or else it is too much.
      with_silence = curves.get(f"{judge}_{kind}_all", {})
      with_silence = with_silence.get("real", with_silence.get("given"))
      figure, axes = plt.subplots(figsize=(5, 3.2))
      for variant, values in by_variant.items():
        values = np.asarray(values, np.float64)
        shifts = np.arange(len(values)) - len(values) // 2
        axes.plot(
          shifts, values, color=_COLOURS[variant], label=variant, marker="."
        )
      if with_silence is not None:
        axes.plot(
          shifts,
          np.asarray(with_silence, np.float64),
          color="grey",
          linestyle=":",
          label="real, silent windows too",
        )
      axes.axvline(0, color="grey", linewidth=0.8)
      axes.set_xlabel("shift of the speech, frames of 1/25 s")
      axes.set_ylabel(label)
      _styled(axes)
      caption = {
        "similarity": "Similarity, windows with speech.",
        "distance": "Distance, all windows.",
        "accuracy": "Accuracy over offsets: how often speech is nearer to its "
        "own lips than to those of that shift; 0.5 is chance.",
      }[kind]
      found.append(_figure(html_page.svg(figure), caption))
    if found:
      parts.append(f'<h3>By {name}</h3><div class="row">{"".join(found)}</div>')
  return "".join(parts)


def _shift_tests(tests: dict) -> str:
  parts = []
  for judge, scores in tests.items():
    figure, panels = plt.subplots(1, len(scores), figsize=(12, 3.2))
    for axes, (score, by_shift) in zip(panels, scores.items(), strict=True):
      shifts = [s for s in evaluate_sync.SHIFTS if str(s) in by_shift]
      values = [by_shift[str(s)] for s in shifts]
      axes.plot(shifts, values, marker="o", color="black", label="moved")
      for name, line, colour in (
        (evaluate_sync.SHUFFLED, "--", "tab:red"),
        (evaluate_sync.EXCHANGED, ":", "tab:orange"),
      ):
        if name in by_shift:
          axes.axhline(by_shift[name], linestyle=line, color=colour, label=name)
      axes.set_xlabel("frames", fontsize=8)
      better = evaluate_sync.HIGHER_IS_BETTER[score]
      until = evaluate_sync.falls_until(by_shift, better)
      seen = f"worse to {until}" if until != "0" else "sees no shift"
      axes.set_title(
        f"{score}\n{'higher' if better else 'lower'} is better\n{seen}",
        fontsize=8,
      )
      axes.tick_params(labelsize=8)
      _styled(axes, legend=False)
    figure.legend(
      *panels[0].get_legend_handles_labels(),
      loc="lower center",
      ncols=3,
      frameon=False,
      fontsize=8,
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    parts.append(
      _figure(
        html_page.svg(figure),
        f"Real clips by {judge}: speech moved by so many frames, either way; "
        "shuffled: every window of speech is a random one of other clips; "
        "exchanged: another clip's speech as it is.",
      )
    )
  return "".join(parts)


def _rocs(rocs: dict) -> str:
  if not rocs:
    return ""
  figure, axes = plt.subplots(figsize=(4, 4))
  for judge, roc in rocs.items():
    axes.plot(
      roc["false"],
      roc["true"],
      label=f"{judge}, area {roc['area']:.3f}\n"
      f"({roc['area_all']:.3f} with silent windows)",
    )
  axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
  axes.set_xlabel("wrong pairs taken for right")
  axes.set_ylabel("right pairs found")
  axes.set_aspect("equal")
  _styled(axes)
  distance = next(iter(rocs.values()))["min_distance"]
  return (
    '<div class="row">'
    + _figure(
      html_page.svg(figure),
      "Speech with its own lips against speech with lips of the same clip at "
      f"least {distance} frames away; windows with speech.",
    )
    + "</div>"
  )


def _meaning(measure: str) -> str:
  for judge, name in _JUDGES.items():
    if measure.startswith(f"{judge}_"):
      return f"{_SYNC_MEANINGS[measure.removeprefix(f'{judge}_')]}; by {name}"
  meaning = _MEANINGS.get(measure)
  if meaning is None and measure.startswith("lower_"):
    return f"the same of the lower half: {_MEANINGS[measure[len('lower_') :]]}"
  return meaning or ""


def _cell(value: dict) -> str:
  mean, low, high = (value.get(k, np.nan) for k in ("mean", "low", "high"))
  text = f"{mean:.3g}"
  return f"{text} [{low:.3g}, {high:.3g}]" if np.isfinite(low) else text


def _summary(summary: dict) -> str:
  variants = [v for v in VARIANTS if any(v in m for m in summary.values())]
  head = "".join(f'<th class="n">{v}</th>' for v in variants)
  lines = [
    (
      measure,
      *(_cell(by[v]) if v in by else "-" for v in variants),
    )
    for measure, by in summary.items()
  ]
  numbers = tuple(range(1, len(variants) + 1))
  return f"<tr><th>measure</th>{head}</tr>" + html_page.rows(lines, numbers)


def _caution(report: dict) -> str:
  """What a generator's scores by the expert are worth."""
  by = report["summary"].get("expert_similarity", {})
  if "generated" not in by or "real" not in by:
    return ""
  text = (
    "The generator may have learnt from the very expert that judges it here: "
    "such scores tell that it learnt, not how well lips and speech go together."
  )
  if by["generated"]["mean"] > by["real"]["mean"]:
    text += (
      " Generated clips score higher than real ones: they please the expert "
      "beyond what is real. Take another judge's word (--expert, SyncNet)."
    )
  return f"<p><b>{text}</b></p>"


def _windows(report: dict) -> str:
  figures = {k: v for k, v in report.items() if k.startswith("eval/")}
  if not figures:
    return ""
  return (
    f"<h3>On {report['windows']} fixed windows, as in training</h3>"
    "<div class='wide'><table>"
    + html_page.rows(
      (k.removeprefix("eval/"), f"{v:.4f}") for k, v in figures.items()
    )
    + "</table></div>"
  )


def _clips(outdir: str, clips: list[dict]) -> str:
  if not clips:
    return "<p>None: nothing was generated.</p>"
  return "".join(
    "<figure><video controls preload='auto' "
    f'src="{html.escape(os.path.relpath(clip["file"], outdir))}"></video>'
    f"<figcaption>{html.escape(clip['name'])}; from left to right: "
    f"{', '.join(clip['columns'])}</figcaption></figure>"
    for clip in clips
  )


def _failures(failures: list[dict]) -> str:
  if not failures:
    return "<p>Nothing: every clip was scored.</p>"
  return (
    f"<p>{len(failures)}, not in any mean unless said.</p><table>"
    "<tr><th>clip</th><th>why</th></tr>"
    + html_page.rows(((f["clip"], f["reason"]) for f in failures), ())
    + "</table>"
  )


def _table(rows: list[dict]) -> str:
  names = list(dict.fromkeys(k for r in rows for k in r["names"]))
  keys = list(dict.fromkeys(k for r in rows for k in r["figures"]))
  head = "".join(
    f"<th>{html.escape(h)}</th>"
    for h in [*names, *(f"{m} {v}" for m, v in keys)]
  )
  lines = [
    [r["names"].get(n, "") for n in names]
    + [f"{r['figures'][k]:.4g}" if k in r["figures"] else "" for k in keys]
    for r in rows
  ]
  numbers = tuple(range(len(names), len(names) + len(keys)))
  return f"<tr>{head}</tr>{html_page.rows(lines, numbers)}"


def write(
  outdir: str, report: dict, rows: list[dict], clips: list[dict]
) -> None:
  """Writes outdir/report.html.

  Args:
    outdir: also of the clips.
    report: what metrics.json holds.
    rows: of evaluation.results.Results.
    clips: [{"name", "file", "columns"}], videos to show.
  """
  variants = [
    v for v in VARIANTS if any(v in m for m in report["summary"].values())
  ]
  title = report["stage"] or "videos"
  if report["step"] is not None:
    title += f", step {report['step']}"
  where = (
    f"videos of {report['videos']}"
    if "videos" in report
    else f"split {report['split']} ({report['clips']} clips)"
  )
  not_measured = report["not_measured"]
  page = _PAGE.substitute(
    style=html_page.STYLE,
    title=html.escape(title),
    header=html.escape(
      f"{where}; checkpoint {report['checkpoint']}; {report['seconds']:.0f} s "
      f"on {report['device']}"
    ),
    note=f"<p><b>{html.escape(report['note'])}</b></p>"
    if "note" in report
    else "",
    scored=report["scored"],
    variants=html.escape(
      "; ".join(f"{v}: {VARIANTS[v]}" for v in variants) + "."
    ),
    summary=_summary(report["summary"]),
    caution=_caution(report),
    meanings=html_page.rows(
      ((measure, _meaning(measure)) for measure in report["summary"]), ()
    ),
    windows=_windows(report),
    clips=_clips(outdir, clips),
    curves=_curves(report["curves"]),
    max_shift=report["protocol"]["max_shift"],
    shifts=_shift_tests(report["shift_tests"]),
    rocs=_rocs(report["roc"]),
    failures=_failures(report["failures"]),
    not_measured="<table>"
    + html_page.rows(not_measured.items(), ())
    + "</table>"
    if not_measured
    else "<p>Nothing.</p>",
    table=_table(rows),
    protocol=html.escape(json.dumps(without_nan(report["protocol"]), indent=2)),
  )
  html_page.write(os.path.join(outdir, "report.html"), page)
