r"""Times this project's operations beside PyTorch's, in one run.

  make benchmark
  python -m launch.benchmark --operations=generator,gan_step --rounds=9

From a checkout: PyTorch's side is the twins that parity is tested with.  Each
side is a process of its own, and they take turns, so that a busy or throttled
machine slows both; ratios are of the same round, and of networks a turn's first
run is not counted.  Outputs of the very first are compared.  Before each turn
it is measured whether two cores share a cache, and ratios are also given by
that (shared_cache.py).  Writes results.json and table.md, and prints the table.

Without --data and --videos, a few clips are rendered and prepared, which needs
the extra "demo".
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import tqdm
from absl import app, flags

from tests.benchmarks import shared_cache

# Operations with PyTorch's counterpart, and the largest relative difference of
# the two sides' outputs in float32; those below have a reference of their own.
_PAIRED = {
  "machine": None,
  "generator": 1e-5,
  "expert_step": 1e-4,
  "generator_step": 1e-4,
  "gan_step": 1e-4,
  "expert_input": None,
  "generator_input": None,
}
_ALONE = ("prepare_data", "lipsync", "save")
_OPERATIONS = (*_PAIRED, *_ALONE)
_MODES = ("eager", "channels_last", "compile", "channels_last+compile", "onnx")
# bfloat16 keeps 8 bits of a number.
_BFLOAT16 = 3e-2

_WANTED = flags.DEFINE_list("operations", list(_OPERATIONS), "What to time.")
_AGAINST = flags.DEFINE_list(
  "against", ["eager", "onnx"], f"PyTorch's modes: {', '.join(_MODES)}."
)
_PRECISION = flags.DEFINE_list(
  "precision", ["float32"], "float32, bfloat16 (autocast) or both."
)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of each side.", 1)
_SECONDS = flags.DEFINE_float("seconds", 2.0, "Of a turn; once at the least.")
_WIDTH = flags.DEFINE_float("width", 1.0, "Of the networks.", 0.0)
_BATCH = flags.DEFINE_integer(
  "batch_size", 32, "Frames of the generator, windows of stage 1.", 1
)
_WINDOWS = flags.DEFINE_integer("windows", 4, "Windows of stage 2.", 1)
_DATA = flags.DEFINE_string("data", None, "A prepared data set.")
_VIDEOS = flags.DEFINE_string("videos", None, "A folder of talking videos.")
_OUTDIR = flags.DEFINE_string("outdir", "runs/benchmark", "For the results.")
for _flag, _words in (
  ("operations", _OPERATIONS),
  ("against", _MODES),
  ("precision", ("float32", "bfloat16")),
):
  flags.register_validator(
    _flag,
    lambda given, words=_words: set(given) <= set(words),
    f"expected some of {','.join(_words)}",
  )


class _Side:
  """A worker process, asked and answering."""

  def __init__(self, module: str, environment: dict[str, str]):
    with open(os.path.join(_OUTDIR.value, f"{module}.log"), "a") as log:
      self._process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.worker", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **environment},
      )

  def ask(self, **request) -> dict:
    """Returns the answer; {"error": ...} also if the process has died."""
    try:
      print(json.dumps(request), file=self._process.stdin, flush=True)
      answer = self._process.stdout.readline()
    except BrokenPipeError:
      answer = ""
    if not answer:
      return {"error": f"its process ended ({self._process.wait()})"}
    return json.loads(answer)

  def close(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()


def _sides(name: str, precision: str) -> dict[str, tuple[str, str]]:
  """Returns {what the table calls it: (worker, PyTorch's mode)}."""
  found = {"jax": ("jax", "eager")}
  if name not in _PAIRED:
    return found
  networks = _PAIRED[name] is not None
  for mode in _AGAINST.value if networks else ["eager"]:
    if mode != "onnx":
      found[mode] = ("torch", mode)
    elif name == "generator" and precision == "float32":
      found[mode] = ("onnx", mode)
  return found


def _measure(name: str, options: dict, folder: str) -> dict:
  """Times one operation beside each of its rivals.

  In pairs, for the longer a process waits for its turn, the more of its memory
  and caches it has lost.  The first pair's profile and rate are the table's; of
  the others, what went wrong on our side is.
  """
  ours, *rivals = _sides(name, options["precision"]).items()
  first, *others = [[rival] for rival in rivals] or [[]]
  result = _measure_in_turns(name, options, folder, dict([ours, *first]), True)
  for rival in others:
    pair = _measure_in_turns(name, options, folder, dict([ours, *rival]), False)
    failed = pair["sides"].pop("jax").get("error")
    if failed:
      result["sides"]["jax"].setdefault("error", failed)
    result["sides"] |= pair["sides"]
  return result


def _measure_in_turns(
  name: str,
  options: dict,
  folder: str,
  wanted: dict[str, tuple[str, str]],
  in_detail: bool,
) -> dict:
  """Times one operation on some of `_sides`, in turns.

  In detail, what was compiled is profiled, and compiled once more from the
  cache.
  """
  cache = os.path.join(folder, "cache")
  environment = {
    "JAX_COMPILATION_CACHE_DIR": cache,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # Both sides may have to share an accelerator.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
  }
  sides, answers, seconds, shared = {}, {}, {}, []
  try:
    for label, (module, mode) in wanted.items():
      sides[label] = _Side(module, environment)
      answers[label] = sides[label].ask(
        prepare=name, options={**options, "mode": mode, "folder": folder}
      )
      seconds[label] = []
    alive = [label for label in wanted if "error" not in answers[label]]
    for _ in tqdm.trange(_ROUNDS.value, desc=name, leave=False):
      shared.append([])
      for label in alive:
        shared[-1].append(shared_cache.now())
        answer = sides[label].ask(run=_SECONDS.value)
        if "error" in answer:
          answers[label]["error"] = answer["error"]
          continue
        seconds[label].append(statistics.median(answer["seconds"]))
        answers[label]["memory"] = answer["memory"]
    in_detail &= "compile_seconds" in answers["jax"].get("facts", {})
    if in_detail:
      answers["jax"] |= sides["jax"].ask(profile=1)
  finally:
    for side in sides.values():
      side.close()
  if in_detail:
    again = _Side("jax", environment)
    warm = again.ask(prepare=name, options={**options, "folder": folder})
    again.close()
    if "error" not in warm:
      facts = answers["jax"]["facts"]
      facts["warm_compile_seconds"] = warm["facts"]["compile_seconds"]
  return _result(name, options, answers, seconds, shared)


def _result(name, options, answers, seconds, shared) -> dict:
  """Rates, ratios of each round, and how far outputs lie apart."""
  result = {"operation": name, "precision": options["precision"], "sides": {}}
  # Cores that have moved by the next round may have moved in this one.
  cores = [
    shared_cache.where(a + b[:1])
    for a, b in zip(shared, [*shared[1:], []], strict=True)
  ]
  outputs = {}
  for label, answer in answers.items():
    side = {k: v for k, v in answer.items() if k != "outputs"}
    if "error" not in answer:
      rates = [answer["items"] / s for s in seconds[label]]
      side |= {"rates": rates, "rate": statistics.median(rates)}
      if "outputs" in answer:
        outputs[label] = dict(np.load(answer["outputs"]))
    result["sides"][label] = side
  ours = result["sides"]["jax"]
  for label, side in result["sides"].items():
    if label == "jax" or "rate" not in side or "rate" not in ours:
      continue
    ratios = [a / b for a, b in zip(ours["rates"], side["rates"], strict=True)]
    side["ratio"] = statistics.median(ratios)
    side["ratio_range"] = [min(ratios), max(ratios)]
    side["ratios_by_cores"] = {
      where: [r for r, at in zip(ratios, cores, strict=True) if at == where]
      for where in sorted(set(cores))
    }
    side["rate_beside_it"] = ours["rate"]
    if label in outputs and "jax" in outputs:
      side["difference"] = max(
        float(
          np.linalg.norm(outputs["jax"][k] - v) / max(np.linalg.norm(v), 1e-30)
        )
        for k, v in outputs[label].items()
      )
  return result


def _failures(results: list[dict]) -> list[str]:
  """Says where a side failed or outputs differ."""
  found = []
  for result in results:
    bound = _PAIRED.get(result["operation"])
    if bound and result["precision"] == "bfloat16":
      bound = _BFLOAT16
    for label, side in result["sides"].items():
      where = f"{result['operation']}, {result['precision']}, {label}"
      if "error" in side:
        found.append(f"{where}: {side['error']}")
      elif bound and side.get("difference", 0.0) > bound:
        found.append(
          f"{where}: outputs differ by {side['difference']:.1e}, expected at "
          f"most {bound:.0e}"
        )
  return found


def _table(results: list[dict]) -> str:
  """Returns the results as Markdown."""
  lines = [
    "| operation | precision | side | a second | ours is | differs by | "
    "memory |",
    "|---|---|---|---|---|---|---|",
  ]
  for result in results:
    for label, side in result["sides"].items():
      row = [result["operation"], result["precision"], label]
      if "error" in side:
        row += [side["error"], "", "", ""]
      else:
        ratio, difference = "", ""
        if "ratio" in side:
          low, high = side["ratio_range"]
          ratio = f"{side['ratio']:.2f}x ({low:.2f}-{high:.2f})"
        if "difference" in side:
          difference = f"{side['difference']:.1e}"
        memory = side.get("memory")
        row += [
          f"{side['rate']:.4g} {side['unit']}",
          ratio,
          difference,
          f"{memory / 1e9:.2f} GB" if memory else "",
        ]
      lines.append(f"| {' | '.join(row)} |")
  lines += ["", "Of the first side, in more detail:", ""]
  for result in results:
    facts = result["sides"]["jax"].get("facts") or {}
    if facts:
      text = ", ".join(f"{k} {v:.4g}" for k, v in facts.items())
      lines.append(f"- {result['operation']}, {result['precision']}: {text}")
    profile = result["sides"]["jax"].get("profile") or {}
    if profile:
      text = ", ".join(f"{k} {v:.0%}" for k, v in profile.items())
      lines.append(f"  - of the operations' time: {text}")
    for label, side in result["sides"].items():
      text = ", ".join(
        f"{statistics.median(ratios):.2f}x with cores {where} ({len(ratios)})"
        for where, ratios in side.get("ratios_by_cores", {}).items()
        if where != "unknown"
      )
      if text:
        lines.append(f"  - rounds against {label}: {text}")
  return "\n".join(lines) + "\n"


def _machine() -> dict:
  """What it was measured on; the GPU as JAX's side finds it."""
  name = platform.processor() or platform.machine()
  if os.path.exists("/proc/cpuinfo"):
    with open("/proc/cpuinfo") as f:
      models = [line for line in f if line.startswith("model name")]
    name = models[0].split(":")[1].strip() if models else name
  versions = subprocess.run(
    [
      sys.executable,
      "-c",
      "import jax, torch; print(jax.__version__, torch.__version__, "
      "jax.devices()[0].device_kind, sep='\\n')",
    ],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split("\n")
  return {
    "cpu": f"{os.cpu_count()} x {name}",
    "jax": versions[0],
    "torch": versions[1],
    "device": versions[2],
  }


def _render(folder: str) -> tuple[str, str]:
  """Makes a few clips; returns (videos, prepared data)."""
  from data_prep import clips, prepare, rendered_corpus

  spec = rendered_corpus.CorpusSpec(identities=(2, 1, 1), clips=3)
  rendered_corpus.render(spec, folder, os.cpu_count())
  videos, data = (os.path.join(folder, name) for name in ("videos", "data"))
  prepare.prepare(
    videos,
    data,
    clips.Settings(),
    splits_folder=os.path.join(folder, "splits"),
    workers=os.cpu_count(),
  )
  return videos, data


def main(argv):
  """Times everything that is wanted; status 1 if something failed."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  os.makedirs(_OUTDIR.value, exist_ok=True)
  results = []
  with tempfile.TemporaryDirectory() as folder:
    videos, data = _VIDEOS.value, _DATA.value
    if {"expert_input", "generator_input", "prepare_data", "lipsync"} & set(
      _WANTED.value
    ) and not (videos and data):
      made = _render(folder)
      videos, data = videos or made[0], data or made[1]
    for name in _WANTED.value:
      networks = _PAIRED.get(name) is not None or name in ("machine", "lipsync")
      for precision in _PRECISION.value if networks else ["float32"]:
        options = {
          "width": _WIDTH.value,
          "batch_size": _BATCH.value,
          "generator_windows": _WINDOWS.value,
          "precision": precision,
          "data": data,
          "videos": videos,
        }
        results.append(_measure(name, options, folder))
        found = {
          "machine": _machine(),
          "options": {k: v for k, v in options.items() if k != "precision"},
          "results": results,
        }
        with open(os.path.join(_OUTDIR.value, "results.json"), "w") as f:
          json.dump(found, f, indent=2)
  table = _table(results)
  with open(os.path.join(_OUTDIR.value, "table.md"), "w") as f:
    f.write(table)
  print(table)
  wrong = _failures(results)
  if wrong:
    sys.exit("error: " + "\n".join(wrong))


if __name__ == "__main__":
  app.run(main)
