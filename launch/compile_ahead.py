r"""Compiles a train step for devices that are not there, and says what fits.

  pip install -e '.[tpu]'  # '.[cuda]' for GPUs
  python -m launch.compile_ahead --config=configs/gan_lrs2.py \
    --config.data.batch_size=512 --config.compute_dtype=bfloat16 \
    --topology=v5e:2x4  # h100:8

Needs no TPU, no GPU, no data and no trained expert.  Prints what one device
holds and does in a step.  With --fit, the largest batch that fits is reckoned,
for a GPU from two small batches; for a TPU, whose full-size step takes minutes
to compile, from a step of a quarter of the width.  Compile that batch to be
sure.
"""

import os
import sys

# Before JAX is imported: libtpu would look for the machine that it is on, and
# CUDA's plugin for its driver.
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
os.environ["JAX_PLATFORMS"] = "cpu"  # Nothing is run on a device.

from absl import app, flags
from ml_collections import config_flags

from w2l_jax import absent_devices, compile_ahead

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Experiment, from configs/.", lock_config=True
)
_EXPERT_CONFIG = config_flags.DEFINE_config_file(
  "expert_config",
  "configs/expert_lrs2.py",
  "Of the frozen expert, for stage 2.",
)
_TOPOLOGY = flags.DEFINE_string(
  "topology",
  "v5e:2x4",
  "Kind of device and how they lie: v5e:2x4, a TPU's; h100:8, a machine of "
  "eight GPUs; h100:2x8, two.",
)
_FIT = flags.DEFINE_bool("fit", False, "Reckon the largest batch that fits.")
flags.mark_flag_as_required("config")


def main(argv):
  """Compiles and prints."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are --name=")
  config, expert_config = _CONFIG.value, _EXPERT_CONFIG.value
  try:
    devices = absent_devices.devices(_TOPOLOGY.value)
    if _FIT.value:
      found = compile_ahead.largest_batch(
        config, expert_config, devices, _TOPOLOGY.value
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
