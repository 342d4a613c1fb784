r"""What a training step of each config takes: the table of PERFORMANCE.md.

  python -m tests.measurements.step_costs
  python -m tests.measurements.step_costs --configs=gan_lrs2,gan_grid:small

Compiles for one device of this machine, from shapes alone: no data is needed.
"""

import importlib
import time

import jax
from absl import app, flags

from w2l_jax import compile_ahead, sharding

_CONFIGS = flags.DEFINE_list(
  "configs",
  [
    "expert_lrs2",
    "generator_lrs2",
    "gan_lrs2",
    "expert_grid",
    "expert_grid_contrastive",
    "generator_grid",
    "gan_grid",
    "generator_grid_improved",
    "gan_grid_improved",
    "expert_grid:small",
    "expert_grid_contrastive:small",
    "generator_grid:small",
    "gan_grid:small",
    "generator_grid_improved:small",
    "gan_grid_improved:small",
    "expert_rendered:small",
    "generator_rendered:small",
  ],
  "Of configs/.",
)
_PRECISION = flags.DEFINE_enum(
  "precision", "float32", ["float32", "bfloat16"], "Of the networks."
)


def load(name: str):
  """Returns the config of NAME or NAME:SIZE."""
  module, _, size = name.partition(":")
  return importlib.import_module(f"configs.{module}").get_config(size)


def expert_of(name: str) -> str:
  """Returns the config of the expert that a config's recipe is taught by."""
  module, colon, size = name.partition(":")
  kind = module.split("_", 1)[1].removesuffix("_improved")
  improved = "_contrastive" if module.endswith("_improved") else ""
  return f"expert_{kind}{improved}{colon}{size}"


def main(argv):
  """Prints a line for each config."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  print(
    "| config | width | windows | steps | arguments | temporaries | compile |"
  )
  print("|---|---|---|---|---|---|---|")
  for name in _CONFIGS.value:
    config, expert = load(name), load(expert_of(name))
    for c in (config, expert):
      c.compute_dtype = _PRECISION.value
    mesh = sharding.make_mesh(config.data.batch_size, jax.devices()[:1])
    step = compile_ahead.jitted_step(config, expert, mesh)
    arguments = compile_ahead.abstract_arguments(config, expert)
    began = time.monotonic()
    memory = step.lower(*arguments).compile().memory_analysis()
    cells = [
      name,
      f"{config.width:g}",
      config.data.batch_size,
      config.train.num_steps,
      f"{memory.argument_size_in_bytes / 1e6:.0f} MB",
      f"{memory.temp_size_in_bytes / 1e9:.2f} GB",
      f"{time.monotonic() - began:.0f} s",
    ]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
  app.run(main)
