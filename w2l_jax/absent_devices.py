"""Devices to compile for that need not be there: TPU slices, NVIDIA GPUs."""

import re

from jax.experimental import topologies

# Of each kind of GPU, in the terms of XLA's GpuTargetConfigProto, what its
# compiler asks for (NVIDIA's data sheets, and what the CUDA driver tells of
# them): cores (streaming multiprocessors), arithmetic units of each, clock
# (GHz), bandwidth (bytes/s), memory, L2 cache, shared memory of a core and of a
# block (bytes), compute capability.
_GPUS = {
  "a100": dict(
    name="NVIDIA A100-SXM4-80GB",
    core_count=108,
    fpus_per_core=64,
    clock_rate_ghz=1.41,
    memory_bandwidth=2_039_040_000_000,
    device_memory_size=85_100_068_864,
    l2_cache_size=41_943_040,
    shared_memory_per_core=167_936,
    shared_memory_per_block_optin=166_912,
    cuda_compute_capability="{ major: 8 }",
  ),
  "h100": dict(
    name="NVIDIA H100 80GB HBM3",
    core_count=132,
    fpus_per_core=128,
    clock_rate_ghz=1.98,
    memory_bandwidth=3_352_320_000_000,
    device_memory_size=84_942_979_072,
    l2_cache_size=52_428_800,
    shared_memory_per_core=233_472,
    shared_memory_per_block_optin=232_448,
    cuda_compute_capability=(
      "{ major: 9 feature_extension: ACCELERATED_FEATURES }"
    ),
  ),
}
_GPUS["h200"] = {
  **_GPUS["h100"],
  "name": "NVIDIA H200 141GB HBM3e",
  "memory_bandwidth": 4_800_000_000_000,
  "device_memory_size": 151_397_597_184,
}
# What they have in common.
_EVERY_GPU = dict(
  threads_per_block_limit=1024,
  threads_per_warp=32,
  threads_per_core_limit=2048,
  thread_dim_limit_x=1024,
  thread_dim_limit_y=1024,
  thread_dim_limit_z=64,
  block_dim_limit_x=2**31 - 1,
  block_dim_limit_y=65_535,
  block_dim_limit_z=65_535,
  registers_per_core_limit=65_536,
  registers_per_block_limit=65_536,
  shared_memory_per_block=49_152,
)
# Bytes of memory of a device; TPUs: cloud.google.com/tpu/docs, system
# architecture.
MEMORY = {
  "v4": 32 * 2**30,
  "v5e": 16 * 2**30,
  "v5p": 95 * 2**30,
  "v6e": 32 * 2**30,
  **{kind: gpu["device_memory_size"] for kind, gpu in _GPUS.items()},
}


def kind_of(topology: str) -> str:
  """Returns the kind of a topology, a key of MEMORY.

  Raises:
    ValueError: if it is another word.
  """
  kind = topology.partition(":")[0]
  if kind not in MEMORY:
    raise ValueError(
      f"topology {topology!r}: expected one of {', '.join(MEMORY)}, a colon, "
      "and how the devices lie: v5e:2x4, h100:8"
    )
  return kind


def is_gpu(topology: str) -> bool:
  """Whether it is of GPUs; see `kind_of`."""
  return kind_of(topology) in _GPUS


def devices(topology: str) -> list:
  """Returns the devices of a topology, to compile for.

  Args:
    topology: of a TPU, "v5e:2x4", as libtpu names it; of GPUs, "h100:8", so
      many in one machine, or "h100:2x8", machines and GPUs of each.

  Raises:
    ValueError: if it does not have this form.
    RuntimeError: if the compiler for it is not installed, or refuses it.
  """
  kind = kind_of(topology)
  if kind not in _GPUS:
    return _described(topology, "tpu", platform="tpu", topology_name=topology)
  lie = re.fullmatch(r"[^:]+:(?:([1-9]\d*)x)?([1-9]\d*)", topology)
  if lie is None:
    raise ValueError(
      f"topology {topology!r}: expected {kind}:8, so many GPUs in one machine, "
      f"or {kind}:2x8, machines and GPUs of each"
    )
  return _described(
    topology,
    "cuda",
    platform="cuda",
    topology=f"1x{lie[1] or 1}x{lie[2]}",
    target_config=_target_config(**_GPUS[kind]),
  )


def _target_config(name: str, **fields) -> str:
  """Returns the text of a GpuTargetConfigProto."""
  info = "\n".join(
    f"{key} {value}" if key == "cuda_compute_capability" else f"{key}: {value}"
    for key, value in {**_EVERY_GPU, **fields}.items()
  )
  return (
    f"gpu_device_info {{\n{info}\n}}\n"
    'platform_name: "CUDA"\n'
    f'device_description_str: "{name}"\n'
    # Of cuDNN and CUDA.  (With 9.28 and 13.0, or 9.10 and 12.8, steps came to
    # the same bytes.)
    "dnn_version_info { major: 9 minor: 10 }\n"
    "runtime_version { major: 13 }\n"
  )


def _described(topology: str, extra: str, /, **kwargs) -> list:
  try:
    return list(topologies.get_topology_desc(**kwargs).devices)
  except Exception as e:  # noqa: BLE001 (plugins raise whatever they like)
    raise RuntimeError(
      f"{topology}: no compiler describes it "
      f"({' '.join(str(e).split())[:200]}). Is it installed? pip install -e "
      f"'.[{extra}]'"
    ) from e
