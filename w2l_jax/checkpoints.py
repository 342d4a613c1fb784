"""Workdirs and their configs, and networks read from checkpoints.

A workdir holds config.json and the step folders of checkpoint_store.py; each
step folder also carries the config, so that it can be used by itself.  Where a
network is read, a single file of weights (weight_files.py) will do as well, and
so will the name of networks that come with the package (released.py).
"""

import json
import os
import re
import zlib

import jax
import ml_collections
import orbax.checkpoint as ocp
from etils import epath

from w2l_jax import checkpoint_store, released, torch_checkpoint, weight_files
from w2l_jax.checkpoint_store import CheckpointError
from w2l_jax.sharding import same_everywhere
from w2l_jax.train_state import (
  NetworkState,
  adam_of,
  make_optimizer,
  with_adam,
)

CONFIG_FILE = "config.json"
# WORKDIR/best means the best checkpoint that a workdir has.
_BEST = "best"
# The stage whose checkpoints hold a network.
STAGES = {
  "expert": "expert",
  "generator": "generator",
  "discriminator": "generator",
}

# Fields that do not change a run's result and so may differ on a restart, in
# the run's own config and in that of its expert.
_FREE_FIELDS = (
  r"(expert\.)?train\.(num_steps|log_every_steps|save_every_steps|keep)",
  r"(expert\.)?train\.best_(metric|mode)",
  r"(expert\.)?data\.(num_threads|num_workers|cache_gb|on_device|dir)",
  r"expert\.train\.eval_every_steps",
  r"inference\..*",
)
# In stage 2 the sync loss is switched on by an evaluation.
_FREE_IN_STAGE_1 = (r"train\.eval_every_steps",)


def to_plain(config: ml_collections.ConfigDict) -> dict:
  """Returns a config as nested dicts of what JSON can hold."""
  return json.loads(config.to_json_best_effort())


def _flat(config: dict, prefix: str = "") -> dict:
  out = {}
  for key, value in config.items():
    if isinstance(value, dict):
      out.update(_flat(value, f"{prefix}{key}."))
    else:
      out[prefix + key] = value
  return out


def claim_workdir(workdir: str, config: dict) -> None:
  """Writes config.json, or checks that the workdir is of the same config.

  A run that has saved nothing yet does not claim: its config may be mended.

  Raises:
    CheckpointError: if the workdir is another config's, with the fields that
      differ; or if the processes of a run have different ones.
  """
  path = os.path.join(workdir, CONFIG_FILE)
  os.makedirs(workdir, exist_ok=True)
  patterns = _FREE_FIELDS
  if config["stage"] == "expert":
    patterns += _FREE_IN_STAGE_1

  def is_free(key):
    return any(re.fullmatch(pattern, key) for pattern in patterns)

  fixed = sorted(item for item in _flat(config).items() if not is_free(item[0]))
  if not same_everywhere(zlib.crc32(json.dumps(fixed).encode())):
    contents = config.get("data", {}).get("contents")
    raise CheckpointError(
      f"{workdir}: not all processes were given the same: the flags must be "
      "the same for all, and so must the data set in config.data.dir "
      f"(data.contents is {contents!r} in process {jax.process_index()})"
    )
  if os.path.exists(path) and is_begun(workdir):
    with open(path) as f:
      saved = json.load(f)
    if saved["stage"] != config["stage"]:
      raise CheckpointError(
        f"{workdir}: holds a run of another config; stage: {saved['stage']!r} "
        f"there, {config['stage']!r} here; give a new --workdir"
      )
    there, here = _flat(saved), _flat(config)
    differing = [
      f"  {key}: {there.get(key)!r} there, {here.get(key)!r} here"
      for key in sorted(there.keys() | here.keys())
      if there.get(key) != here.get(key) and not is_free(key)
    ]
    if differing:
      if any(line.startswith("  data.contents:") for line in differing):
        differing.append(
          "data.contents is a digest of what config.data.dir holds: it is not "
          "the data set that the run began with, or was prepared anew since"
        )
      raise CheckpointError(
        f"{workdir}: holds a run of another config; continue it with its own, "
        "or give a new --workdir. The fields that differ:\n"
        + "\n".join(differing)
      )
  if jax.process_index() == 0:
    write_config(path, config)


def write_config(path: str, config: dict) -> None:
  """Writes a config as JSON, complete or not at all."""
  partial = f"{path}.partial"
  with open(partial, "w") as f:
    json.dump(config, f, indent=2, sort_keys=True)
    f.write("\n")
  os.replace(partial, path)


def _find(path: str) -> tuple[epath.Path, dict]:
  """Returns the step folder that `path` means and its config."""
  where = epath.Path(os.path.abspath(path))
  if where.name == _BEST and not where.exists() and where.parent.exists():
    where = _best_folder(where.parent)
  if is_weights(path):
    raise CheckpointError(
      f"{path}: weights alone; this needs a workdir: make one with "
      "python -m launch.convert_checkpoint"
    )
  if not where.exists():
    raise CheckpointError(
      f"{path}: no such checkpoint; expected a workdir, a file of weights, or "
      f"one that comes with the package: {', '.join(released.names())}"
    )
  if not where.is_dir():
    raise CheckpointError(
      f"{path}: a file; expected a workdir of launch.train, one of the step "
      "folders in its checkpoints/, or weights in a file that ends in "
      f"{', '.join(weight_files.SUFFIXES)}"
    )
  if not (where / "state").exists():
    found = checkpoint_store.saved_steps(where)
    if not found:
      raise CheckpointError(
        f"{path}: holds no checkpoint; expected a workdir of launch.train that "
        "has saved one, or one of the step folders in its checkpoints/"
      )
    where = where / checkpoint_store.STEPS / str(max(found))
  config = where / "config" / "metadata"
  try:
    return where, json.loads(config.read_text())
  except (OSError, json.JSONDecodeError) as e:
    raise CheckpointError(
      f"{where}: damaged checkpoint: its config cannot be read ({e})"
    ) from e


def _best_folder(workdir: epath.Path) -> epath.Path:
  """Returns the step folder that is best by the run's train.best_metric.

  The newest checkpoint's: the metric may have been another one before, and
  values of two cannot be compared.
  """
  steps = sorted(checkpoint_store.saved_steps(workdir))
  found = {}
  schedule = _find(os.fspath(workdir))[1].get("train", {}) if steps else {}
  name, mode = (schedule.get(k) for k in ("best_metric", "best_mode"))
  for step in steps:
    where = workdir / checkpoint_store.STEPS / str(step)
    path = where / "metrics" / "metrics"
    if path.exists():
      metrics = json.loads(path.read_text())
      if name in metrics:
        found[checkpoint_store.sign(mode) * metrics[name], step] = where
  if not found:
    of_what = f" by {name}" if name else ""
    raise CheckpointError(
      f"{workdir}: no checkpoint there was evaluated{of_what} yet; the newest "
      f"is {workdir} itself"
    )
  return found[max(found)]


def step_folder(path: str) -> str:
  """Returns the step folder that a path means: itself, or a workdir's newest.

  Raises:
    CheckpointError: if there is no checkpoint.
  """
  return os.fspath(_find(path)[0])


def describe(path: str) -> tuple[str, int | None, dict]:
  """Returns (stage, step, config) of a checkpoint.

  Args:
    path: a workdir or a step folder.  The step is None if the folder was given
      another name.

  Raises:
    CheckpointError: if there is no checkpoint.
  """
  where, config = _find(path)
  step = int(where.name) if where.name.isdigit() else None
  return config["stage"], step, config


def step_of(path: str) -> int | None:
  """Returns a checkpoint's step; None where that is not known."""
  return None if is_weights(path) else describe(path)[1]


def is_weights(path: str) -> bool:
  """Whether a path means weights alone: a file, or a name of `released`."""
  return released.is_name(path) or weight_files.is_weight_file(path)


def _weight_file(path: str, network: str) -> str:
  """Returns the file of `is_weights`.

  Raises:
    CheckpointError: if a released one has no such network.
  """
  if not released.is_name(path):
    return path
  file = os.path.join(released.folder(path), f"{network}.safetensors")
  if not os.path.exists(file):
    raise CheckpointError(f"{path}: comes without the {network}")
  return file


def workdir_of(path: str) -> str:
  """Returns the workdir of a checkpoint; a lone step folder is its own."""
  where, _ = _find(path)
  lone = where.parent.name != checkpoint_store.STEPS
  return os.fspath(where if lone else where.parent.parent)


def load_config(path: str, stage: str) -> dict:
  """Reads the config that a checkpoint was trained with.

  Args:
    path: a workdir, a step folder or weights (`is_weights`).
    stage: "expert" or "generator", which the checkpoint must be of.

  Raises:
    CheckpointError: if there is no checkpoint or it is of the other network.
  """
  if is_weights(path):
    try:
      config = weight_files.load_config(_weight_file(path, stage), stage)
    except weight_files.WeightFileError as e:
      raise CheckpointError(str(e)) from e
  else:
    _, _, config = describe(path)
  if config["stage"] != stage:
    raise CheckpointError(
      f"{path}: a checkpoint of stage {config['stage']!r}, expected one of "
      f"{stage!r}"
    )
  return config


def load_variables(
  path: str, network: str, abstract: dict, ema: bool = False
) -> dict:
  """Reads one network's variables, without the rest of the train state.

  Args:
    path: a workdir, a step folder or weights (`is_weights`).
    network: one of STAGES.
    abstract: {"params": ..., "batch_stats": ...} of jax.ShapeDtypeStructs.
    ema: whether the moving average of the params takes their place.

  Returns:
    The variables, on the default device.

  Raises:
    CheckpointError: if there is no such checkpoint, or it is of another
      network or size.
  """
  load_config(path, STAGES[network])
  if is_weights(path):
    if ema:
      raise CheckpointError(
        f"{path}: a file of weights has one set of params; an average is in "
        "workdirs of runs with config.ema_decay"
      )
    variables = _from_weight_file(weight_files.load_variables, path, network)
  else:
    path, config = _find(path)
    if ema and not config.get("ema_decay"):
      raise CheckpointError(
        f"{path}: has no moving average of its params: config.ema_decay is 0"
      )
    variables = _restore(path, network, abstract)
    if ema:
      average = {"ema_params": abstract["params"]}
      variables["params"] = _restore_item(path, average)["ema_params"]
  _check_shapes(path, network, abstract, variables)
  return jax.device_put(variables)


def load_adam(path: str, network: str, abstract: dict):
  """Reads Adam's state of one network.

  Args:
    path, network, abstract: as for `load_variables`.

  Returns:
    An optax.ScaleByAdamState, or None if the checkpoint has none.

  Raises:
    CheckpointError: as `load_variables`.
  """
  config = load_config(path, STAGES[network])
  if is_weights(path):
    return _from_weight_file(weight_files.load_adam, path, network)
  where, _ = _find(path)
  if "opt_state" not in _saved_parts(where, network):
    return None
  tx = make_optimizer(**config[optimizer_field(network)])
  opt_state = jax.eval_shape(tx.init, abstract["params"])
  restored = _restore(where, network, {"opt_state": opt_state})
  return adam_of(restored["opt_state"])


def optimizer_field(network: str) -> str:
  """Returns the config field of a network's optimizer; network: of STAGES."""
  own = network == "discriminator"
  return "discriminator_optimizer" if own else "optimizer"


def start_from(
  state: NetworkState, path: str, network: str, optimizer: bool
) -> NetworkState:
  """Returns a network's initial state with weights from a checkpoint.

  Args:
    state: as initialised.
    path, network: as for `load_variables`.
    optimizer: whether Adam goes on from its state there, too.

  Raises:
    CheckpointError: as `load_variables`; also if Adam's state is wanted and
      there is none.
  """
  variables = load_variables(path, network, state.variables)
  opt_state = state.opt_state
  if optimizer:
    adam = load_adam(path, network, state.variables)
    if adam is None:
      raise CheckpointError(
        f"{path}: holds weights without Adam's state; start from them with "
        "config.init_optimizer=False"
      )
    opt_state = with_adam(opt_state, jax.device_put(adam))
  return NetworkState(
    variables["params"], variables.get("batch_stats", {}), opt_state
  )


def is_begun(workdir: str) -> bool:
  """Whether a run has saved anything in a workdir."""
  return bool(checkpoint_store.saved_steps(epath.Path(workdir)))


def _from_weight_file(load, path: str, network: str):
  """Calls a reader of weight_files.py."""
  try:
    return load(_weight_file(path, network), STAGES[network], network)
  except (
    weight_files.WeightFileError,
    torch_checkpoint.TorchCheckpointError,
  ) as e:
    raise CheckpointError(str(e)) from e


def _saved_parts(where: epath.Path, network: str) -> dict:
  """Names what a step folder holds of one network."""
  saved = ocp.PyTreeCheckpointer().metadata(where / "state").item_metadata
  if saved is None:
    raise CheckpointError(f"{where}: the list of its arrays is damaged")
  if not saved.get(network):
    raise CheckpointError(
      f"{where}: holds no {network}; it holds {', '.join(saved)}"
    )
  return saved[network]


def _restore(where: epath.Path, network: str, abstract: dict) -> dict:
  """Restores a part of one network's state."""
  _saved_parts(where, network)
  return _restore_item(where, {network: abstract})[network]


def _restore_item(where: epath.Path, item: dict) -> dict:
  """Restores a part of a train state."""
  try:
    restored = ocp.PyTreeCheckpointer().restore(
      where / "state",
      args=ocp.args.PyTreeRestore(
        item=item,
        restore_args=ocp.checkpoint_utils.construct_restore_args(item),
        partial_restore=True,
      ),
    )
    checkpoint_store.verify(where, restored)
  except (ValueError, KeyError, OSError) as e:
    raise CheckpointError(
      f"{where}: its {', '.join(item)} cannot be read at the size that its "
      f"config names; it is damaged or the code has changed ({e})"
    ) from e
  return restored


def _check_shapes(where, network: str, abstract: dict, variables: dict) -> None:
  """Names the first array that is missing, too much, or of another shape.

  Orbax restores arrays of any shape without a word.
  """
  wanted = dict(jax.tree_util.tree_leaves_with_path(abstract))
  found = dict(jax.tree_util.tree_leaves_with_path(variables))
  of_config = (
    f"{where}: cannot be read as a {network} of the size that its config"
  )
  for path in sorted(wanted.keys() ^ found.keys(), key=str):
    what = "is missing" if path in wanted else "is not part of it"
    raise CheckpointError(
      f"{of_config} names: {jax.tree_util.keystr(path)} {what}"
    )
  for path, want in wanted.items():
    if want.shape != found[path].shape:
      raise CheckpointError(
        f"{of_config} names: {jax.tree_util.keystr(path)} has shape "
        f"{found[path].shape}, expected {want.shape}"
      )
