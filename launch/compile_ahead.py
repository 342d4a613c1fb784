r"""Compiles a train step for a TPU that is not there, and says what fits.

  pip install -e '.[tpu]'
  python -m launch.compile_ahead --config=configs/gan_lrs2.py \
    --config.data.batch_size=512 --config.compute_dtype=bfloat16 \
    --topology=v5e:2x4

Needs no TPU, no data and no trained expert.  Prints what one device holds and
does in a step.  A full-size step takes minutes to compile; with --fit a small
one of a quarter of the width is compiled instead, from whose memory the largest
batch that fits is reckoned: compile that one to be sure.
"""

import os
import sys

# Before JAX is imported: libtpu would look for the machine that it is on.
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import app, flags
from ml_collections import config_flags

from w2l_jax import compile_ahead, sharding

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Experiment, from configs/.", lock_config=True
)
_EXPERT_CONFIG = config_flags.DEFINE_config_file(
  "expert_config",
  "configs/expert_lrs2.py",
  "Of the frozen expert, for stage 2.",
)
_TOPOLOGY = flags.DEFINE_string(
  "topology", "v5e:2x4", "Kind of TPU and how its chips lie."
)
_FIT = flags.DEFINE_bool("fit", False, "Reckon the largest batch that fits.")
flags.mark_flag_as_required("config")


def main(argv):
  """Compiles and prints."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  kind = _TOPOLOGY.value.split(":")[0]
  if kind not in compile_ahead.MEMORY:
    sys.exit(
      f"error: --topology={_TOPOLOGY.value}: expected one of "
      f"{', '.join(compile_ahead.MEMORY)}, a colon, and how the chips lie: "
      "v5e:2x4"
    )
  config, expert_config = _CONFIG.value, _EXPERT_CONFIG.value
  try:
    devices = sharding.tpu_devices(_TOPOLOGY.value)
    if _FIT.value:
      found = compile_ahead.largest_batch(
        config, expert_config, devices, compile_ahead.MEMORY[kind]
      )
      print(
        f"{found['batch']} windows a device should fit: some "
        f"{found['temporaries'] / 1e6:.0f} MB of temporaries, "
        f"{found['arguments'] / 1e6:.0f} MB of arguments; check: "
        f"--config.data.batch_size={found['batch'] * len(devices)}"
      )
      return
    compiled, seconds = compile_ahead.compile_step(
      config, expert_config, devices
    )
  except (ValueError, RuntimeError) as e:
    sys.exit(f"error: {e}")
  print(
    f"{config.stage}, {config.data.batch_size} windows on {len(devices)} "
    f"devices ({_TOPOLOGY.value}), compiled in {seconds:.0f} s; each device:"
  )
  for name, text in compile_ahead.table(compiled).items():
    print(f"  {name.ljust(16)} {text}")


if __name__ == "__main__":
  app.run(main)
