"""The tables and pictures of launch.results_grid, from what its runs wrote."""

import json
import os

from launch import curves
from w2l_jax import metrics

_VARIANTS = ("real", "generated", "reconstructed", "copied", "unsynced")
# Of the clips' figures: those of pictures have no judge.
_PICTURES = (
  "lower_l1",
  "lower_psnr",
  "lower_ssim",
  "lower_jitter",
  "mouth_correlation",
)
_SYNC = ("similarity", "offset", "lse_d", "lse_c")
_EXPERTS = {
  "eval/two_way_accuracy": "two-way accuracy",
  "eval/two_way_accuracy_all": "of all windows",
  "eval/balanced_accuracy": "balanced accuracy",
  "eval/loss": "BCE",
}
_NOTES = """\
Two-way accuracy: speech is nearer to its own faces than to faces of the same
clip at least five frames away, in windows with speech.  Similarity: the mean
cosine of a judge at no offset, in windows with speech, so it depends on the
judge; compare it with real video's in the same row.  lse_d and lse_c are
LSE-D's and LSE-C's rule (corrected: at no offset) with that judge in SyncNet's
place, so no published number.  generated: a face says another clip's speech;
reconstructed: a clip's first face alone says its own speech, held against the
truth; copied: that face held still; unsynced: real video beside another clip's
speech.  Intervals are 95 %, by bootstrap over clips."""


def _read(*path: str) -> dict | None:
  try:
    with open(os.path.join(*path)) as f:
      return json.load(f)
  except FileNotFoundError:
    return None


def _row(cells) -> str:
  return "| " + " | ".join(cells) + " |"


def _table(header, rows) -> str:
  lines = [_row(header), _row(["---"] * len(header))]
  return "\n".join(lines + [_row(row) for row in rows])


def _number(value: float) -> str:
  return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _with_interval(figure: dict) -> str:
  if figure["mean"] is None:
    return "-"
  text = _number(figure["mean"])
  if figure.get("low") is not None:
    text += f" ({_number(figure['low'])} to {_number(figure['high'])})"
  return text


def _seconds_a_step(training: dict) -> str:
  """Of the last go; none where it found all steps done."""
  seconds = training["seconds_a_step"]
  return "-" if seconds is None else f"{seconds:.2f}"


def _minutes(training: dict) -> str:
  seconds = training["seconds_a_step"]
  return "-" if seconds is None else f"{training['steps'] * seconds / 60:.0f}"


def _experts(folder: str, whats: dict[str, str]) -> str:
  rows = []
  for name, what in whats.items():
    found = _read(folder, name, "evaluation", "metrics.json")
    training = _read(folder, name, "training.json")
    if found and found["stage"] == "expert":
      rows.append(
        [
          what,
          *(_number(found[key]) for key in _EXPERTS),
          str(training["steps"]),
          _minutes(training),
        ]
      )
  return _table(["expert", *_EXPERTS.values(), "steps", "minutes"], rows)


def _generators(folder: str, whats: dict[str, str], others: bool) -> str:
  rows = []
  for name, what in whats.items():
    for judge in ("", "_judge"):
      found = _read(
        folder, name, f"evaluation{'_others' * others}{judge}", "metrics.json"
      )
      if not found or found["stage"] != "generator":
        continue
      by = "judge" if judge else "own expert"
      sync = {f"expert_{key}": f"{key} ({by})" for key in _SYNC}
      pictures = {} if judge else {key: key for key in _PICTURES}
      for key, label in (pictures | sync).items():
        measured = found["summary"].get(key)
        if measured:
          rows.append(
            [
              what,
              label,
              *(
                _with_interval(measured[v]) if v in measured else "-"
                for v in _VARIANTS
              ),
            ]
          )
  return _table(["generator", "measure", *_VARIANTS], rows)


def write_ablations(folder: str, whats: dict[str, str]) -> str:
  """Writes ABLATIONS.md: a row for each ablation that has been measured.

  Args:
    folder: of launch.results_grid.
    whats: {ablation: what it is}.

  Returns:
    The path.
  """
  columns = {
    "L1, lower half": ("lower_l1", "reconstructed"),
    "SSIM, lower half": ("lower_ssim", "reconstructed"),
    "mouth's opening": ("mouth_correlation", "reconstructed"),
    "judge, own speech": ("expert_similarity", "reconstructed"),
    "judge, other speech": ("expert_similarity", "generated"),
    "judge, real": ("expert_similarity", "real"),
  }
  rows = []
  for name, what in whats.items():
    workdir = os.path.join(folder, "ablations", name)
    found = _read(workdir, "evaluation_judge", "metrics.json")
    if found:
      training = _read(workdir, "training.json")
      rows.append(
        [
          what,
          *(
            _with_interval(found["summary"][measure][variant])
            for measure, variant in columns.values()
          ),
          _seconds_a_step(training),
        ]
      )
  path = os.path.join(folder, "ABLATIONS.md")
  with open(f"{path}.partial", "w") as f:
    f.write(_table(["", *columns, "s a step"], rows) + "\n")
  os.replace(f"{path}.partial", path)
  return path


def _off_sync(folder: str, whats: dict[str, str]) -> dict[str, list[dict]]:
  """Returns {run or "real": [{"step": shift, panel: similarity}]}."""
  found: dict[str, list[dict]] = {}

  def add(label, panel, values):
    if values:
      middle = len(values) // 2
      found.setdefault(label, []).extend(
        {"step": i - middle, panel: value} for i, value in enumerate(values)
      )

  for name in whats:
    report = _read(folder, name, "evaluation", "metrics.json") or {}
    if report.get("stage") == "expert":
      similarity = report.get("curves", {}).get("expert_similarity", {})
      add(name, "real video, by each expert", similarity.get("real"))
      continue
    report = _read(folder, name, "evaluation_judge", "metrics.json") or {}
    similarity = report.get("curves", {}).get("expert_similarity", {})
    if "real" not in found:
      add("real", "by the judge", similarity.get("real"))
    add(name, "by the judge", similarity.get("generated"))
  return found


def write(folder: str, whats: dict[str, str]) -> str:
  """Writes RESULTS.md and its pictures into the folder.

  Args:
    folder: of launch.results_grid.
    whats: {run: what it is}.

  Returns:
    The path of RESULTS.md.
  """
  parts = [
    _experts(folder, whats),
    "Test clips:\n\n" + _generators(folder, whats, others=False),
  ]
  others = _generators(folder, whats, others=True)
  if others.count("\n") > 1:
    parts.append("People that no network has seen:\n\n" + others)
  parts.append(_NOTES)
  commands = [_read(folder, name, "training.json") for name in whats]
  parts.append(
    "```\n"
    + "\n".join(
      f"# {c['device']}, commit {c['commit']}\n{c['command']}"
      for c in commands
      if c
    )
    + "\n```"
  )
  for stage, figures in (
    ("experts", ["train/loss", "eval/two_way_accuracy"]),
    ("generators", ["train/loss_l1", "eval/lower_l1", "eval/loss_sync"]),
  ):
    lines = {
      name: metrics.read_metrics(os.path.join(folder, name)) for name in whats
    }
    lines = {
      name: found
      for name, found in lines.items()
      if any(figures[-1] in line for line in found)
    }
    if lines:
      path = os.path.join(folder, f"{stage}.png")
      curves.draw(lines, figures, path)
      parts.append(f"![{stage}]({stage}.png)")
  shifted = _off_sync(folder, whats)
  if shifted:
    curves.draw(
      shifted,
      sorted(
        {name for line in sum(shifted.values(), []) for name in line} - {"step"}
      ),
      os.path.join(folder, "off_sync.png"),
      "shift of the speech, frames",
    )
    parts.append("![off-sync curves](off_sync.png)")
  path = os.path.join(folder, "RESULTS.md")
  with open(f"{path}.partial", "w") as f:
    f.write("\n\n".join(parts) + "\n")
  os.replace(f"{path}.partial", path)
  return path
