"""Training as clusters run it: several processes, signals, and kills.

W2L_KILLS is how many kills `test_killed_anywhere` makes, W2L_SEED when: several
seeds can be run side by side.  Give --timeout, too: 50 kills take half an hour.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import ml_collections
import pytest
from conftest import (
  REPOSITORY,
  STEPS,
  assert_trees_equal,
  expert_config,
  gan_config,
  untimed,
)

from launch import local_processes
from w2l_jax import (
  checkpoints,
  dataset,
  sharding,
  stop_requests,
  train_expert,
  train_generator,
)
from w2l_jax.checkpoint_store import CheckpointStore

pytestmark = pytest.mark.xdist_group("trained")
KILLS = int(os.environ.get("W2L_KILLS", "2"))
# Steps of the runs that are killed, where there are many kills.
LONG = 24


def arguments(stage, data_dir, workdir, expert=None, steps=STEPS):
  """What the runs of conftest.py were given, as flags."""
  flags = [
    f"--config=configs/{'expert' if stage == 'expert' else 'gan'}_grid.py:tiny",
    f"--workdir={workdir}",
    f"--config.data.dir={data_dir}",
    f"--config.train.num_steps={steps}",
    "--config.train.eval_every_steps=2",
    "--config.train.save_every_steps=1",
  ]
  if stage == "generator":
    flags += [
      f"--config.expert_checkpoint={expert}",
      "--config.loss.sync_weight_initial=0.01",
      "--config.loss.sync_on_below=1e6",
      "--config.loss.sync_weight=0.03",
      "--config.loss.adversarial_weight=0.07",
      "--config.optimizer.clip_norm=0.0",
    ]
  return flags


class Processes:
  """Processes of one run, all killed at the end."""

  def __init__(self, flags, count=1, folder=None, extra=None, environment=None):
    """Takes flags of all, of some ({process: flags}), variables for all."""
    self.folder, self.all = folder, []
    port = local_processes.free_port()
    for i in range(count):
      own = (extra or {}).get(i, [])
      if count > 1 and not environment:
        own = own + [
          f"--coordinator=127.0.0.1:{port}",
          f"--num_processes={count}",
          f"--process_id={i}",
        ]
      variables = {
        k: v.format(i=i, port=port) for k, v in (environment or {}).items()
      }
      with open(self._log(i), "w") as log:
        self.all.append(
          subprocess.Popen(
            [sys.executable, "-m", "launch.train", *flags, *own],
            cwd=REPOSITORY,
            env={**os.environ, **variables},
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
          )
        )

  def _log(self, i):
    return os.path.join(self.folder, f"process_{i}.log")

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in self.all:
      process.kill()
      process.wait()

  def wait(self, timeout=200):
    """Returns the statuses of all; raises if one hangs."""
    end = time.monotonic() + timeout
    return [p.wait(max(1, end - time.monotonic())) for p in self.all]

  def said(self):
    texts = []
    for i in range(len(self.all)):
      with open(self._log(i)) as f:
        texts.append(f.read())
    return texts


def wait_for_step(workdir, step, timeout=200):
  """Waits until metrics.jsonl has a line of `step` or later."""
  end = time.monotonic() + timeout
  path = os.path.join(workdir, "metrics.jsonl")
  while time.monotonic() < end:
    if os.path.exists(path):
      with open(path) as f:
        lines = f.read().splitlines()
      if lines and json.loads(lines[-1])["step"] >= step:
        return
    time.sleep(0.05)
  raise TimeoutError(f"{path}: no step {step}")


def restored(config, workdir, stage):
  """The newest state of a workdir."""
  module = train_expert if stage == "expert" else train_generator
  state = module.create_state(config, jax.random.key(0))
  store = CheckpointStore(workdir, 3)
  state = store.restore(state, sharding.replicated(sharding.make_mesh(4)))
  store.close()
  return jax.device_get(state)


@pytest.fixture
def uninterrupted(expert_run, gan_run, data_dir, tmp_path):
  """{stage: (workdir, last state)} of runs to compare with.

  Where there are many kills, of longer runs, which are worth killing.
  """
  if KILLS == 2:
    return {"expert": expert_run, "generator": gan_run}
  expert, gan = (
    str(tmp_path / f"{stage}_whole") for stage in ("expert", "gan")
  )
  state = train_expert.train_and_evaluate(expert_config(data_dir, LONG), expert)
  gan_state = train_generator.train_and_evaluate(
    gan_config(data_dir, expert_run[0], LONG), gan
  )
  return {
    "expert": (expert, jax.device_get(state)),
    "generator": (gan, jax.device_get(gan_state)),
  }


def kill(process, workdir, moment, in_training):
  """Kills a run after `moment` seconds, of its training or of all.

  Returns:
    What it left: the steps that are saved, whether a save was under way; None
    if it had ended by itself.
  """
  steps = os.path.join(workdir, "checkpoints")
  while in_training and process.poll() is None:
    if os.path.isdir(steps) and os.listdir(steps):
      break
    time.sleep(0.02)
  try:
    process.wait(moment)
    return None
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
  names = os.listdir(steps) if os.path.isdir(steps) else []
  saving = [name for name in names if not name.isdigit()]
  return f"{len(names) - len(saving)} steps saved, {len(saving)} being saved"


def test_killed_anywhere(uninterrupted, expert_run, data_dir, tmp_path):
  """kill -9 at a random moment, then the same command: nothing differs.

  Half of the kills fall anywhere, half into the training.
  """
  rng = random.Random(int(os.environ.get("W2L_SEED", "0")))
  few = KILLS == 2
  num_steps = STEPS if few else LONG
  # How long a run of each stage takes; a guess at first.
  seconds = {"expert": 20.0, "generator": 20.0}
  for number in range(KILLS):
    stage = ("expert", "generator")[number % 2]
    reference, state = uninterrupted[stage]
    in_training = few or number % 4 >= 2
    left, tries = None, 0
    while left is None:  # Too late: it had ended by itself.
      workdir = str(tmp_path / f"{stage}_{number}_{tries}")
      os.makedirs(workdir)
      flags = arguments(stage, data_dir, workdir, expert_run[0], num_steps)
      moment = rng.uniform(0.0, 0.8) * seconds[stage] / 2**tries
      if few:
        moment = 0.0  # As soon as anything is saved.
      begun = time.monotonic()
      with Processes(flags, folder=workdir) as run:
        left = kill(run.all[0], workdir, moment, in_training)
      if left is None:
        seconds[stage] = time.monotonic() - begun
      tries += 1
      assert tries < 10
    begun = time.monotonic()
    with Processes(flags, folder=workdir) as run:
      assert run.wait(timeout=200 if few else 1800) == [0], run.said()
    took = time.monotonic() - begun
    # On a busy machine, moments of all of the run, not of its start alone.
    seconds[stage] = max(seconds[stage], took)
    print(
      f"{number}: {stage}, {moment:.1f} s, {left}; then {took:.1f} s",
      flush=True,
    )
    config = config_of(reference)
    assert_trees_equal(restored(config, workdir, stage), state)
    assert untimed(workdir) == untimed(reference), number


def config_of(workdir):
  return ml_collections.ConfigDict(checkpoints.describe(workdir)[2])


@pytest.mark.slow  # A minute; in `make test` when there is room for it.
def test_two_processes_are_as_one(expert_run, data_dir, tmp_path):
  """The same global batches give the same figures, to rounding.

  Then one of the two is asked to stop: both save the same step, from which one
  alone goes on.
  """
  workdir = str(tmp_path)
  flags = arguments("expert", data_dir, workdir, steps=100_000)
  with Processes(flags, count=2, folder=workdir) as run:
    wait_for_step(workdir, STEPS + 2)
    asked = time.monotonic()
    run.all[1].send_signal(signal.SIGTERM)
    assert run.wait() == [0, 0], run.said()
    print(f"{time.monotonic() - asked:.1f} s from signal to exit")
    assert time.monotonic() - asked < 60
  ours, theirs = (untimed(w)[:2] for w in (workdir, expert_run[0]))
  assert ours[0] == pytest.approx(theirs[0], rel=2e-3, abs=2e-4)
  # Adam's first step is its rate times the gradient's sign, so that rounding
  # turns some weights of so small a network the other way.
  assert ours[1]["train/loss"] == pytest.approx(
    theirs[1]["train/loss"], rel=2e-2
  )
  _, step, _ = checkpoints.describe(workdir)
  assert f"saved step {step}" in run.said()[0]
  flags = arguments("expert", data_dir, workdir, steps=step + 1)
  with Processes(flags, folder=workdir) as run:
    assert run.wait() == [0], run.said()
  assert f"going on from step {step}" in run.said()[0]


@pytest.mark.slow  # The dead are missed only after a while.
@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_do_not_wait_for_the_dead(data_dir, tmp_path, victim):
  workdir = str(tmp_path)
  flags = arguments("expert", data_dir, workdir, steps=100_000)
  with Processes(flags, count=2, folder=workdir) as run:
    wait_for_step(workdir, 2)
    run.all[victim].kill()
    died = time.monotonic()
    statuses = run.wait(timeout=150)
    print(f"{time.monotonic() - died:.1f} s, statuses {statuses}")
  assert statuses[1 - victim] != 0


@pytest.mark.slow  # As for two processes.
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", stop_requests.SIGNALS)
def test_a_signal_to_one_process_alone(data_dir, tmp_path, number, workers):
  """And to all of its workers, as a terminal's Ctrl-C is."""
  workdir = str(tmp_path)
  flags = arguments("expert", data_dir, workdir, steps=100_000)
  flags.append(f"--config.data.num_workers={workers}")
  with Processes(flags, folder=workdir) as run:
    wait_for_step(workdir, 2)
    os.killpg(run.all[0].pid, number)
    asked = time.monotonic()
    assert run.wait() == [0], run.said()
    print(f"{time.monotonic() - asked:.1f} s from signal to exit")
  assert f"{number.name}: saved step" in run.said()[0]


def ended_after_its_error(run, victim, error):
  """Waits for all; returns the seconds from a process's error to the last end.

  All must have said which process failed of what.
  """
  run.all[victim].wait(timeout=150)
  failed = time.monotonic()
  statuses = run.wait(timeout=150)
  assert all(statuses), run.said()
  for i, said in enumerate(run.said()):
    assert error in said
    if i != victim:
      assert f"process {victim} has failed: " in said
  return time.monotonic() - failed


@pytest.mark.slow  # As for two processes.
@pytest.mark.parametrize("victim", [0, 1])
def test_an_error_in_one_process_ends_all(data_dir, tmp_path, victim):
  """Soon, although an ordinary end of JAX waits for the others."""
  workdir = str(tmp_path)
  flags = arguments("expert", data_dir, workdir, steps=100_000)
  extra = {victim: ["--config.data.dir=/nowhere"]}
  with Processes(flags, count=2, folder=workdir, extra=extra) as run:
    seconds = ended_after_its_error(run, victim, "/nowhere")
  print(f"{seconds:.1f} s from the first end to the last")
  assert seconds < 10


@pytest.mark.slow  # As for two processes.
@pytest.mark.parametrize(("victim", "split"), [(0, "train"), (1, "val")])
def test_a_record_that_one_process_cannot_read(
  data_dir, tmp_path, victim, split
):
  """The others wait for it in a step, or in an evaluation."""
  workdir, copy = str(tmp_path), str(tmp_path / "data")
  shutil.copytree(data_dir, copy)
  folder = pathlib.Path(dataset.builder_dir(copy, 24))
  (shard,) = folder.glob(f"*{split}.array_record*")
  data = bytearray(shard.read_bytes())
  # Where the digest of a data set does not look.
  begin, end = 5_000, len(data) // 4 - 5_000
  assert end - begin > 10_000
  data[begin:end] = bytes(end - begin)
  shard.write_bytes(data)
  flags = arguments("expert", data_dir, workdir, steps=100_000)
  extra = {victim: [f"--config.data.dir={copy}"]}
  with Processes(flags, count=2, folder=workdir, extra=extra) as run:
    seconds = ended_after_its_error(run, victim, "cannot be read")
  print(f"{seconds:.1f} s from the first end to the last")
  assert seconds < 10


@pytest.mark.slow  # As for two processes.
def test_a_checkpoint_that_one_process_cannot_read(data_dir, tmp_path):
  """All take the one before it.

  The other process has a folder of its own in which the newest is damaged.
  """
  workdirs = [str(tmp_path / name) for name in ("0", "1")]
  flags = arguments("expert", data_dir, workdirs[0], steps=4)
  with Processes(flags, folder=str(tmp_path)) as run:
    assert run.wait() == [0], run.said()
  shutil.copytree(*workdirs)
  state = os.path.join(workdirs[1], "checkpoints", "4", "state")
  files = [
    os.path.join(parent, name)
    for parent, _, names in os.walk(state)
    for name in names
  ]
  os.truncate(max(files, key=os.path.getsize), 100)
  script = tmp_path / "restore.py"
  script.write_text(RESTORE)
  port = local_processes.free_port()
  found = [
    subprocess.Popen(
      [sys.executable, str(script), str(port), str(i), workdirs[i]],
      cwd=REPOSITORY,
      env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  try:
    said = [process.communicate(timeout=120)[0] for process in found]
  finally:
    for process in found:
      process.kill()
      process.wait()
  assert [process.returncode for process in found] == [0, 0], said
  assert all("restored step 3" in text for text in said), said
  assert "another process could not read it" in said[0]
  assert os.path.isdir(os.path.join(workdirs[0], "damaged", "4"))


RESTORE = """
import sys
import jax
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], 2, int(sys.argv[2]))
from configs import expert_grid
from w2l_jax import checkpoint_store, sharding, train_expert
state = train_expert.create_state(
  expert_grid.get_config("tiny"), jax.random.key(0)
)
if sys.argv[2] == "1":
  # Process 0 moves what is damaged, for all; this folder is not its own.
  checkpoint_store.saved_steps = lambda workdir: []
store = checkpoint_store.CheckpointStore(sys.argv[3], 3)
restored = store.restore(state, sharding.replicated(sharding.make_mesh(4)))
print("restored step", int(restored.step))
"""


@pytest.mark.slow  # As for two processes.
def test_configs_of_their_own_are_refused(data_dir, tmp_path):
  """Each would train something else, and all would hang or be wrong."""
  flags = arguments("expert", data_dir, tmp_path, steps=2)
  extra = {1: ["--config.optimizer.learning_rate=0.5"]}
  with Processes(flags, count=2, folder=tmp_path, extra=extra) as run:
    assert all(run.wait(timeout=100)), run.said()
  assert "not all processes were given the same" in "".join(run.said())


@pytest.mark.slow  # As for two processes.
def test_workdirs_of_their_own_are_refused(data_dir, tmp_path):
  """One process would begin anew while the other goes on."""
  workdirs = [str(tmp_path / name) for name in ("0", "1")]
  flags = arguments("expert", data_dir, workdirs[0], steps=2)
  with Processes(flags, folder=str(tmp_path)) as run:
    assert run.wait() == [0], run.said()
  flags = arguments("expert", data_dir, workdirs[0], steps=4)
  extra = {1: [f"--workdir={workdirs[1]}"]}
  with Processes(flags, count=2, folder=str(tmp_path), extra=extra) as run:
    assert all(run.wait(timeout=100)), run.said()
  assert "not all processes see the same checkpoints" in "".join(run.said())


CLUSTERS = {
  "Slurm": {
    "SLURM_JOB_ID": "1{port:05d}",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "{i}",
    "SLURM_LOCALID": "{i}",
    "SLURM_STEP_NODELIST": "127.0.0.1",
  },
  "Open MPI": {
    "OMPI_MCA_orte_hnp_uri": "1{port:05d}.0;tcp://127.0.0.1:{port}",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "{i}",
    "OMPI_COMM_WORLD_LOCAL_RANK": "{i}",
  },
}


@pytest.mark.slow  # As for two processes.
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_processes_of_a_cluster_find_each_other(cluster, data_dir, tmp_path):
  """By the variables that it sets, and nothing else."""
  workdir = str(tmp_path)
  flags = arguments("expert", data_dir, workdir, steps=2)
  with Processes(
    flags, count=2, folder=workdir, environment=CLUSTERS[cluster]
  ) as run:
    assert run.wait() == [0, 0], run.said()
  assert [line["step"] for line in untimed(workdir)] == [1, 2, 2]
  said = run.said()
  assert "2 steps;" in said[0] and "2 steps;" not in said[1]


def test_local_processes_all_fail_together(tmp_path, capfd):
  """One process's error ends the run, with a status."""
  flags = ["--config=configs/expert_grid.py:tiny", f"--workdir={tmp_path}"]
  assert local_processes.run(2, flags) != 0
  assert "config.data.dir is not set" in capfd.readouterr().err
