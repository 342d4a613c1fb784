"""The report of a prepared set: report.html, one page that needs no network.

Figures are prepare.py's report.json, synced_set.py's sync.json and what the
shards hold; pictures are strips of their frames.
"""

import base64
import collections
import html
import json
import os
import re
import string

import cv2
import numpy as np

from data_prep.clip_store import write_json
from data_prep.settings import FATES
from w2l_jax import dataset, windows

# Records shown: spread over the splits, and the extremes of what is measured.
_STRIPS = 12
_STRIP_FRAMES = 10
_STRIP_SIDE = 72

_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Prepared set: $name</title>
<link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
       max-width: 62rem; padding: 0 1rem; color: #222; background: #fff; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #ddd;
         vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.head { display: flex; flex-wrap: wrap; gap: 1rem; }
.head div { flex: 1 1 8rem; border: 1px solid #ddd; border-radius: .4rem;
            padding: .6rem .8rem; }
.head b { display: block; font-size: 1.6rem; }
.row { display: grid; gap: 0 1.5rem;
       grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
figure { margin: 0 0 1rem; }
figcaption { color: #555; font-size: .9rem; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; }
svg { width: 100%; height: auto; }
svg rect { fill: #3b6ea5; } svg text { font-size: 11px; fill: #555; }
svg line { stroke: #999; }
</style>
</head>
<body>
<h1>Prepared set: $name</h1>
<p>Face crops of $size pixels, $detector, crop rule $crop_rule.</p>
<div class="head">$heads</div>
<h2>Splits</h2>
<table><tr><th>split</th><th class="n">records</th><th class="n">hours</th>
<th class="n">speakers</th></tr>
$splits</table>
<h2>Measures of the records</h2>
<div class="row">$plots</div>
$sync
<h2>Set aside</h2>
$set_aside
<h2>Strips</h2>
<p>Ten frames each, evenly over the record.</p>
$strips
</body>
</html>
""")


def write(output: str, image_size: int) -> dict:
  """Writes OUTPUT/report.html and OUTPUT/set.json of a prepared set.

  Args:
    output: folder of the set.
    image_size: of its crops.

  Returns:
    What is in set.json.

  Raises:
    DatasetError: if there is no such set.
  """
  directory = dataset.builder_dir(output, image_size)
  settings = dataset.preparation(directory)
  splits = dataset.open_splits(directory)
  summary, measured = _measure(splits)
  summary["settings"] = settings
  prepared = _read(os.path.join(output, "report.json"))
  summary["clips"] = prepared.get("kept")
  summary["set_aside"] = dict(
    collections.Counter(
      _kind(reason) for reason in prepared.get("set_aside", {}).values()
    ).most_common()
  )
  write_json(os.path.join(output, "set.json"), summary)
  page = _PAGE.substitute(
    name=html.escape(os.path.basename(os.path.abspath(output))),
    size=image_size,
    detector=html.escape(f"boxes of {settings['detector']}"),
    crop_rule=html.escape(settings["crop_rule"]),
    heads="".join(
      f"<div><b>{value}</b>{name}</div>" for name, value in _heads(summary)
    ),
    splits="".join(
      _row(name, split["records"], f"{split['hours']:.3f}", split["speakers"])
      for name, split in summary["splits"].items()
    ),
    plots="".join(
      _histogram(values, title) for title, values in _plotted(measured)
    ),
    sync=_sync(_read(os.path.join(output, "sync.json"))),
    set_aside=_set_aside(prepared.get("set_aside", {})),
    strips="".join(_strips(splits, measured)),
  )
  path = os.path.join(output, "report.html")
  with open(f"{path}.partial", "w", encoding="utf-8") as f:
    f.write(page)
  os.replace(f"{path}.partial", path)
  return summary


def _read(path: str) -> dict:
  try:
    with open(path) as f:
      return json.load(f)
  except FileNotFoundError:
    return {}


def _kind(reason: str) -> str:
  """A reason without its clip's figures, so that like ones count as one."""
  return re.sub(r"\d+", "#", reason)


def _measure(splits: dict[str, dataset.Split]) -> tuple[dict, dict]:
  """Goes once through all records: (summary, {measure: [n] values})."""
  measured = collections.defaultdict(list)
  summary = {"splits": {}}
  everyone, total_seconds, total_records = set(), 0.0, 0
  for name, split in splits.items():
    speakers, seconds = set(), 0.0
    for i in range(len(split)):
      example = split[i]
      length = len(example["frames"]) / windows.FPS
      seconds += length
      speakers.add(dataset.text(example["speaker"]))
      sides = example["boxes"][:, 2:] - example["boxes"][:, :2]
      measured["where"].append((name, i))
      measured["seconds"].append(length)
      measured["face_height"].append(float(np.median(sides[:, 1])))
      measured["confidence"].append(float(example.get("confidence", np.nan)))
      measured["sharpness"].append(float(example.get("sharpness", np.nan)))
      measured["loudness"].append(float(example["mel"].mean()))
    summary["splits"][name] = {
      "records": len(split),
      "hours": round(seconds / 3600, 4),
      "speakers": len(speakers - {""}),
    }
    everyone |= speakers
    total_seconds += seconds
    total_records += len(split)
  summary["records"] = total_records
  summary["hours"] = round(total_seconds / 3600, 4)
  summary["speakers"] = len(everyone - {""})
  for name in ("seconds", "face_height", "confidence", "sharpness"):
    values = np.array(measured[name])
    values = values[np.isfinite(values)]
    if len(values):
      low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
      summary[name] = {
        "p5": round(float(low), 4),
        "median": round(float(middle), 4),
        "p95": round(float(high), 4),
      }
  return summary, measured


def _heads(summary: dict) -> list[tuple[str, str]]:
  heads = [
    ("records (face tracks)", summary["records"]),
    ("hours", f"{summary['hours']:.2f}"),
    ("folders (speakers)", summary["speakers"]),
    ("clips set aside", sum(summary["set_aside"].values())),
  ]
  if summary["clips"] is not None:
    heads.insert(0, ("clips kept", summary["clips"]))
  return heads


def _plotted(measured: dict) -> list[tuple[str, list[float]]]:
  return [
    ("height of the face, pixels of the source", measured["face_height"]),
    ("detector's confidence", measured["confidence"]),
    ("sharpness of the crops", measured["sharpness"]),
    ("seconds", measured["seconds"]),
  ]


def _row(first, *cells) -> str:
  return (
    f"<tr><td>{html.escape(str(first))}</td>"
    + "".join(f'<td class="n">{html.escape(str(c))}</td>' for c in cells)
    + "</tr>"
  )


def _histogram(values: list[float], title: str, bins=24) -> str:
  """An SVG of how many records have which value."""
  values = np.array(values, float)
  values = values[np.isfinite(values)]
  if not len(values):
    return ""
  counts, edges = np.histogram(values, bins=bins)
  width, height = 360, 120
  step = width / len(counts)
  bars = "".join(
    f'<rect x="{i * step:.1f}" y="{height - h:.1f}" width="{step * 0.9:.1f}" '
    f'height="{h:.1f}"><title>{edges[i]:.4g} to {edges[i + 1]:.4g}: {count}'
    "</title></rect>"
    for i, count in enumerate(counts)
    for h in [height * count / counts.max()]
  )
  return (
    f'<figure><svg viewBox="0 -4 {width} {height + 22}" role="img" '
    f'aria-label="{html.escape(title)}">{bars}'
    f'<line x1="0" y1="{height}" x2="{width}" y2="{height}"/>'
    f'<text x="0" y="{height + 14}">{edges[0]:.4g}</text>'
    f'<text x="{width}" y="{height + 14}" text-anchor="end">{edges[-1]:.4g}'
    f"</text></svg><figcaption>{html.escape(title)}; at most "
    f"{counts.max()} records in a bar</figcaption></figure>"
  )


def offsets(report: dict) -> list[tuple[str, list[int]]]:
  """Counts a sync.json's records by offset, and by FATES of settings."""
  by_offset = collections.defaultdict(collections.Counter)
  for row in report["records"]:
    by_offset[row["offset"]][row["what"]] += 1
  return [
    (
      "none" if offset is None else f"{offset:+d}",
      [by_offset[offset][fate] for fate in FATES],
    )
    for offset in sorted(by_offset, key=lambda o: (o is None, o or 0))
  ]


def _sync(report: dict) -> str:
  """The offsets of a set that launch.filter_sync made."""
  if not report:
    return ""
  rows = [row for row in report["records"] if row["offset"] is not None]
  reach = report["max_shift"]
  bins = np.arange(-reach - 0.5, reach + 1)
  reasons = "".join(_row(*item) for item in sorted(report["reasons"].items()))
  plots = (
    _histogram([row["offset"] for row in rows], "offset, frames", bins)
    + _histogram([row["confidence"] for row in rows], "confidence")
    + _histogram(
      [sync["confidence"] for sync in report["mismatched"]],
      "confidence with another record's sound",
    )
  )
  least = report["thresholds"]["min_confidence"]
  return (
    "<h2>Sync</h2><p>By the expert's own opinion, before filtering; least "
    f'confidence {least:.3f}.</p><div class="row">{plots}</div>'
    f"<table>{reasons}</table>"
    "<details><summary>By offset, frames by which the pictures come too "
    "late</summary><table><tr><th>offset</th>"
    + "".join(f'<th class="n">{fate}</th>' for fate in FATES)
    + f"</tr>{''.join(_row(name, *counts) for name, counts in offsets(report))}"
    "</table></details>"
  )


def _set_aside(reasons: dict[str, str]) -> str:
  if not reasons:
    return "<p>Nothing.</p>"
  files = collections.defaultdict(list)
  for file, reason in sorted(reasons.items()):
    files[_kind(reason)].append((file, reason))
  rows = "".join(
    f'<tr><td class="n">{len(found)}</td><td>{html.escape(found[0][1])}</td>'
    f"<td>{html.escape(', '.join(file for file, _ in found[:5]))}"
    f"{' ...' if len(found) > 5 else ''}</td></tr>"
    for found in sorted(files.values(), key=len, reverse=True)
  )
  return (
    '<table><tr><th class="n">clips</th><th>why</th><th>which</th></tr>'
    f"{rows}</table>"
  )


def _strips(splits: dict[str, dataset.Split], measured: dict):
  """Yields figures of some records: the extremes, then evenly."""
  count = len(measured["where"])
  chosen: dict[int, str] = {}
  for name, worst in (
    ("face_height", "smallest face"),
    ("confidence", "least confidence"),
    ("sharpness", "least sharp"),
    ("loudness", "quietest"),
  ):
    values = np.array(measured[name])
    if np.isfinite(values).any():
      chosen.setdefault(int(np.nanargmin(values)), worst)
  for i in np.linspace(0, count - 1, min(count, _STRIPS)).round().astype(int):
    if len(chosen) < _STRIPS:
      chosen.setdefault(int(i), "")
  for i, why in chosen.items():
    split, number = measured["where"][i]
    example = splits[split][number]
    frames = dataset.decode_frames(example)
    spread = np.linspace(0, len(frames) - 1, _STRIP_FRAMES).round().astype(int)
    strip = np.concatenate(
      [cv2.resize(frames[k], (_STRIP_SIDE, _STRIP_SIDE)) for k in spread], 1
    )
    _, jpeg = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 85])
    data = base64.b64encode(jpeg.tobytes()).decode()
    label = f"{dataset.text(example['id'])} ({split})" + (
      f": {why}" if why else ""
    )
    yield (
      f'<figure><img alt="" src="data:image/jpeg;base64,{data}">'
      f"<figcaption>{html.escape(label)}, {measured['seconds'][i]:.1f} s, face "
      f"{measured['face_height'][i]:.0f} pixels high, confidence "
      f"{measured['confidence'][i]:.3f}, sharpness "
      f"{measured['sharpness'][i]:.0f}</figcaption></figure>"
    )
