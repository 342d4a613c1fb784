r"""Holds the networks and the training against PyTorch, and writes a report.

  make compare-torch
  python -m tests.parity.compare --outdir=runs/compare_torch [--short]

Forward passes, gradients, round trips, and training runs of the twins and of
our own train steps from the same weights on the same batches, in float64 for
the proof and in float32 for the picture; then the same runs with one thing
broken at a time.  Writes report.md, trajectories.png and results.json; exits
with 1 if a bound does not hold.  --short: narrow networks and few steps.
--parts=gradients,trajectories measures these again and takes the others from
the results.json that is there.
"""

import dataclasses
import json
import os
import platform
import sys
import time

import jax
import numpy as np
import torch
from absl import app, flags

from tests.parity import gradients, training_runs
from tests.parity.both_sides import Plan

_OUTDIR = flags.DEFINE_string("outdir", "runs/compare_torch", "For the report.")
_SHORT = flags.DEFINE_bool("short", False, "Narrow networks and few steps.")

_ALL_PARTS = [
  "forward",
  "round_trips",
  "gradients",
  "trajectories",
  "breakages",
]
_PARTS = flags.DEFINE_list(
  "parts",
  _ALL_PARTS,
  "What to measure; each part is kept in results.json as soon as it is done.",
)
flags.register_validator(
  "parts",
  lambda names: set(names) <= set(_ALL_PARTS),
  f"expected some of {','.join(_ALL_PARTS)}",
)

# Bounds of the report.
FORWARD = 1e-5
FLOAT64 = 1e-8
FLOAT32_RATIO = 2.0
# Training in float64, as a multiple of what rounding alone does to PyTorch's
# own, until that is itself as large as a mistake would be.
ROUNDING_RATIO = 1e3
_A_MISTAKE = 1e-3
SHORT = Plan(
  width=1 / 16,
  discriminator_batches=1,
  trajectory_width=1 / 16,
  expert_steps=10,
  gan_steps=4,
  broken_steps=2,
  bound_float32=False,
  breakages=(
    "sync weight 0.033 for 0.03",
    "Adam's epsilon 1e-7 for 1e-8",
    "the biased running variance",
  ),
)


def _table(head: list[str], rows) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(
    "| "
    + " | ".join(f"{c:.1e}" if isinstance(c, float) else str(c) for c in line)
    + " |"
    for line in lines
  )


def _beyond_rounding(figures: dict) -> tuple[float, int]:
  """(largest ratio of our float64 distance to rounding's, its step)."""
  ours, rounding = (
    np.maximum.accumulate(figures[k]["by step"])
    for k in (training_runs.OURS, training_runs.ROUNDING)
  )
  rounding = np.maximum(rounding, np.finfo(np.float64).eps)
  small = rounding < _A_MISTAKE
  ratios = (ours / rounding)[small]
  return float(ratios.max()), int(ratios.argmax())


def failures(results: dict, plan: Plan) -> list[str]:
  """What does not hold."""
  found = [
    f"forward pass of {k}: {v:.1e}"
    for k, v in results["forward"].items()
    if not v <= FORWARD
  ]
  found += [
    f"train-mode {k}: {v:.1e}"
    for k, v in results["gradients"]["train-mode outputs"].items()
    if not v <= FLOAT64
  ]
  for name, figures in results["gradients"]["losses"].items():
    if not figures["float64"] <= FLOAT64:
      found.append(f"gradient of {name}: {figures['float64']:.1e}")
    biases = figures["float64 biases before BatchNorm, ours"]
    if biases:
      found.append(f"gradient of {name}: zero biases have {biases:.1e}")
    if plan.bound_float32 and not figures["largest ratio"] <= FLOAT32_RATIO:
      found.append(
        f"float32 gradient of {name} at {figures['at']}: "
        f"{figures['largest ratio']:.2f} times PyTorch's error"
      )
  found += [
    f"round trip of {k} changes bits"
    for k, v in results["round_trips"].items()
    if not v
  ]
  for stage, figures in results["trajectories"].items():
    ratio, at = _beyond_rounding(figures)
    if not ratio <= ROUNDING_RATIO:
      found.append(
        f"float64 training of {stage}: at step {at} losses are {ratio:.0f} "
        "times as far from PyTorch's as rounding takes them"
      )
  right = {
    "expert": results["breakages"]["nothing, stage 1"],
    "gan": results["breakages"]["nothing, stage 2"],
  }
  for name, figures in results["breakages"].items():
    if name.startswith("nothing"):
      continue
    stage = training_runs.BREAKAGES[name][0]
    if not any(figures[k] > 1e3 * right[stage][k] for k in figures):
      found.append(f"a mistake is not seen: {name}")
  return found


def write_report(outdir: str, results: dict, plan: Plan) -> None:
  """Writes report.md."""
  wrong = failures(results, plan)
  gradient_rows = [
    [
      name,
      v["tensors"],
      v["float64"],
      v["float64 biases before BatchNorm, PyTorch's"],
      v["float32, ours"],
      v["float32, PyTorch's"],
      f"{v['largest ratio']:.2f}",
      f"{v['largest ratio, units tipping']:.2f}",
    ]
    for name, v in results["gradients"]["losses"].items()
  ]
  sections = [
    "# w2l_jax held against PyTorch",
    f"{results['machine']}; {sum(results['seconds'].values()):.0f} s. "
    "Differences are relative, |a - b| / |b|.",
    "**Everything holds.**"
    if not wrong
    else "**Does not hold:**\n\n" + "\n".join(f"- {line}" for line in wrong),
    f"## Forward passes\n\nEval mode, float32, width {plan.width:g}, random "
    f"weights and statistics (bound {FORWARD:g}); round trip torch to Flax to "
    "torch.",
    _table(
      ["network", "difference", "round trip"],
      [
        [k, v, "bit-equal" if results["round_trips"][k] else "differs"]
        for k, v in results["forward"].items()
      ],
    ),
    f"## Train mode and gradients\n\nWidth {plan.width:g}; "
    f"{plan.expert_windows} windows for the expert, {plan.generator_windows} "
    "of five frames for the generator. float64 on both sides (bound "
    f"{FLOAT64:g}); float32 against PyTorch's float64, ours and PyTorch's own, "
    "and the largest ratio of the two on one tensor"
    + (f" (bound {FLOAT32_RATIO:g})." if plan.bound_float32 else ".")
    + " Biases before a BatchNorm have a true gradient of zero: PyTorch's, as "
    "a part of the network's largest gradient; ours is zero itself. Where "
    "rounding tips a rectified unit over zero, gradients jump by a thousandth "
    "or more, in PyTorch or here by chance (PyTorch's float32 would tip "
    + ", ".join(
      f"{n} units of the {k}"
      for k, n in results["gradients"]["tipped units"].items()
    )
    + "); so the ratios of these two are of gradients in which all units are "
    "on the side where they are in float64, the discriminator's of "
    f"{plan.discriminator_batches} batches together: for its last bias, one "
    "number, one batch is chance. The last column is of one batch and without "
    "that.",
    _table(
      ["train-mode output, float64", "difference"],
      results["gradients"]["train-mode outputs"].items(),
    ),
    _table(
      [
        "loss",
        "tensors",
        "float64",
        "zero biases",
        "float32 ours",
        "float32 PyTorch's",
        "ratio",
        "units tipping",
      ],
      gradient_rows,
    ),  # fmt: skip
    f"## Training\n\nWidth {plan.trajectory_width:g}, the same weights and "
    f"batches: {plan.expert_steps} steps of stage 1 with "
    f"{plan.expert_windows} windows, {plan.gan_steps} steps of stage 2 with "
    f"{plan.gan_windows} windows, all three losses and the expert's BatchNorm "
    "in batch mode, as the original has it.",
    "![loss curves](trajectories.png)",
    _table(
      [
        "stage",
        "compared",
        "losses (largest of any step)",
        "running statistics at the end",
        "weights at the end",
      ],
      [
        [stage, pair, *(v for k, v in figures.items() if k != "by step")]
        for stage, pairs in results["trajectories"].items()
        for pair, figures in pairs.items()
      ],
    ),  # fmt: skip
    "What rounding alone does is measured on PyTorch itself, in float64, with "
    "the windows of every batch in reverse order, which changes nothing but "
    "the order of sums. Training magnifies that difference from step to step. "
    + " ".join(
      f"{stage}: JAX is at most {ratio:.0f} times as far from PyTorch (step "
      f"{at}; bound {ROUNDING_RATIO:g})."
      for stage, (ratio, at) in (
        (k, _beyond_rounding(v)) for k, v in results["trajectories"].items()
      )
    )
    + " In float32 the same magnification starts from errors a billion times "
    "larger.",
    "## Would a mistake be seen?\n\nThe same runs in float64 for "
    f"{plan.broken_steps} steps, one thing broken at a time.",
    _table(
      ["broken", "losses", "running statistics", "weights"],
      [[k, *v.values()] for k, v in results["breakages"].items()],
    ),
  ]
  with open(os.path.join(outdir, "report.md"), "w") as f:
    f.write("\n\n".join(sections) + "\n")


def _earlier_results(path: str, plan: Plan) -> dict:
  """Reads what was measured before, if it was by the same plan."""
  of_plan = json.loads(json.dumps(dataclasses.asdict(plan)))
  if os.path.exists(path):
    with open(path) as f:
      results = json.load(f)
    if results.get("plan") == of_plan:
      return results
  return {"plan": of_plan}


def _write(path: str, results: dict) -> None:
  with open(f"{path}.partial", "w") as f:
    json.dump(results, f, indent=2)
    f.write("\n")
  os.replace(f"{path}.partial", path)


def main(argv):
  """Compares, writes the report, and says where it is."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  plan = SHORT if _SHORT.value else Plan()
  os.makedirs(_OUTDIR.value, exist_ok=True)
  path = os.path.join(_OUTDIR.value, "results.json")
  results = _earlier_results(path, plan)
  for name, part in {
    "forward": lambda: gradients.forward(plan.width),
    "round_trips": lambda: gradients.round_trips(plan.width),
    "gradients": lambda: gradients.gradients(plan),
    "trajectories": lambda: training_runs.trajectories(
      plan, os.path.join(_OUTDIR.value, "trajectories.png")
    ),
    "breakages": lambda: training_runs.breakages(plan),
  }.items():
    if name not in _PARTS.value:
      continue
    began = time.monotonic()
    print(f"{name} ...", end=" ", flush=True)
    results[name] = part()
    seconds = time.monotonic() - began
    results.setdefault("seconds", {})[name] = seconds
    print(f"{seconds:.0f} s", flush=True)
    _write(path, results)
  results["machine"] = (
    f"{os.cpu_count()} CPU cores, {platform.machine()}, JAX {jax.__version__}, "
    f"PyTorch {torch.__version__}"
  )
  _write(path, results)
  missing = [name for name in _ALL_PARTS if name not in results]
  if missing:
    sys.exit(f"not measured yet: --parts={','.join(missing)}")
  write_report(_OUTDIR.value, results, plan)
  wrong = failures(results, plan)
  for line in wrong:
    print(f"does not hold: {line}")
  print(f"written: {os.path.join(_OUTDIR.value, 'report.md')}")
  sys.exit(1 if wrong else 0)


if __name__ == "__main__":
  app.run(main)
