"""launch.evaluate's figures as text."""

from w2l_jax.evaluation.results import VARIANTS

_FIRST, _OTHERS = 28, 15


def text(report: dict, figures: list[str]) -> str:
  """All that launch.evaluate prints.

  Args:
    report: what metrics.json holds.
    figures: which of its entries are of fixed windows.
  """
  what = report["stage"] or "videos"
  if report["step"] is not None:
    what += f", step {report['step']}"
  where = report.get("videos")
  if where is None:
    where = f"split {report['split']}: {report['clips']} clips"
  parts = [f"{what}, {where}, on {report['device']}"]
  if "note" in report:
    parts.insert(0, f"note: {report['note']}")
  if figures:
    of_windows = windows({k: report[k] for k in figures})
    parts.append(f"{report['windows']} windows:\n{of_windows}")
  parts.append(
    f"{report['scored']} clips or face tracks:\n{clips(report['summary'])}"
  )
  if report["failures"]:
    lines = [f"  {f['clip']}: {f['reason']}" for f in report["failures"]]
    count = len(lines)
    parts.append(f"not scored, or not wholly ({count}):\n" + "\n".join(lines))
  if report["not_measured"]:
    parts.append(
      "\n".join(
        f"not measured: {name}: {reason}"
        for name, reason in report["not_measured"].items()
      )
    )
  return "\n\n".join(parts)


def windows(results: dict) -> str:
  """Puts generated, real and copied figures of one kind on one line.

  Args:
    results: of train_expert.make_evaluator or train_generator's.
  """
  names = [k for k in results if not k.endswith(("_real", "_copied"))]
  suffixes = ("", "_real", "_copied")
  rows = [("", "generated", "real", "copied")]
  if not any(k.endswith("_copied") for k in results):
    rows, suffixes = [], ("",)
  rows += [
    (
      name.removeprefix("eval/"),
      *(
        f"{results[name + s]:.4f}" if name + s in results else "-"
        for s in suffixes
      ),
    )
    for name in names
  ]
  return _aligned(rows)


def clips(summary: dict) -> str:
  """Means over clips, one line a measure, one column a variant.

  Args:
    summary: of evaluation.results.Results.
  """
  variants = [v for v in VARIANTS if any(v in m for m in summary.values())]
  rows = [("", *variants)]
  rows += [
    (
      measure,
      *(f"{by[v]['mean']:.4f}" if v in by else "-" for v in variants),
    )
    for measure, by in summary.items()
  ]
  return _aligned(rows)


def _aligned(rows) -> str:
  return "\n".join(
    row[0].ljust(_FIRST) + "".join(cell.rjust(_OTHERS) for cell in row[1:])
    for row in rows
  )
