"""The scripts that start trainings on clusters, as far as one can without."""

import re
import subprocess

import commands
import pytest
import yaml
from conftest import REPOSITORY

FOLDER = REPOSITORY / "launch" / "clusters"
SCRIPTS = ("slurm.sbatch", "mpirun.sh", "tpu_pod.sh")


def test_every_launcher_is_documented():
  text = (REPOSITORY / "docs" / "CLUSTERS.md").read_text()
  for path in FOLDER.iterdir():
    assert f"launch/clusters/{path.name}" in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_bash(name):
  subprocess.run(["bash", "-n", FOLDER / name], check=True)
  assert (FOLDER / name).read_text().startswith("#!/bin/bash\n")


def fake(folder, name, script):
  path = folder / name
  path.write_text(f"#!/bin/bash\n{script}\n")
  path.chmod(0o755)


def test_slurm_requeues_what_was_stopped(tmp_path):
  """Slurm's programs are played; the job's time runs out."""
  said, srun = tmp_path / "said", tmp_path / "srun_pid"
  # A real srun kills its processes when it gets TERM; they leave in peace when
  # they get it themselves, from scancel.
  fake(
    tmp_path,
    "srun",
    f'trap "exit 137" TERM; trap "exit 0" USR1; echo $$ > {srun}; '
    f'echo "$@" > {said}; sleep 30 & wait',
  )
  fake(
    tmp_path,
    "scancel",
    f'[ "$*" = "--signal=TERM 17" ] && kill -USR1 $(cat {srun})',
  )
  fake(tmp_path, "scontrol", f'echo "$@" >> {said}')
  environment = {
    "PATH": f"{tmp_path}:/usr/bin:/bin",
    "SLURM_JOB_ID": "17",
    "VENV": "/venv",
  }
  job = subprocess.Popen(
    ["bash", FOLDER / "slurm.sbatch", "--config=a.py:small", "--workdir=b c"],
    env=environment,
  )
  for _ in range(100):
    if said.exists() and said.read_text():
      break
    with pytest.raises(subprocess.TimeoutExpired):
      job.wait(0.1)
  job.terminate()
  assert job.wait(20) == 0
  started, requeued = said.read_text().splitlines()
  assert started.endswith("-m launch.train --config=a.py:small --workdir=b c")
  assert requeued == "requeue 17"


def test_slurm_does_not_requeue_what_has_failed(tmp_path):
  said = tmp_path / "said"
  fake(tmp_path, "srun", "exit 3")
  fake(tmp_path, "scontrol", f"touch {said}")
  job = subprocess.run(
    ["bash", FOLDER / "slurm.sbatch"],
    env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"},
    check=False,
  )
  assert job.returncode == 3
  assert not said.exists()


def test_mpirun_passes_arguments_on(tmp_path):
  fake(tmp_path, "mpirun", 'printf "%s\\n" "$@"')
  done = subprocess.run(
    [FOLDER / "mpirun.sh", "--workdir=b c"],
    env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PROCESSES": "4"},
    check=True,
    capture_output=True,
    text=True,
  )
  words = done.stdout.splitlines()
  assert words[:2] == ["-np", "4"] and words[-1] == "--workdir=b c"


def test_the_tpu_pods_command_keeps_its_words(tmp_path):
  """It goes through one more shell on the other side."""
  fake(tmp_path, "gcloud", 'printf "%s\\n" "$@"')
  done = subprocess.run(
    [FOLDER / "tpu_pod.sh", "--workdir=b c"],
    env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TPU": "t", "ZONE": "z"},
    check=True,
    capture_output=True,
    text=True,
  )
  (command,) = re.findall("--command=(.*)", done.stdout)
  assert "--worker=all" in done.stdout
  assert command.endswith(r"--distributed=on --workdir=b\ c")


def test_the_jobset_is_one_process_a_host():
  jobset = yaml.safe_load((FOLDER / "gke_jobset.yaml").read_text())
  (job,) = jobset["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  assert spec["parallelism"] == spec["completions"] == 2
  assert spec["completionMode"] == "Indexed"
  pod = spec["template"]["spec"]
  (container,) = pod["containers"]
  assert container["command"][:3] == ["python", "-m", "launch.train"]
  # Not by an import: commands define flags of the same names.
  known = commands.run("train", "--helpfull").stdout
  for flag in container["command"][3:]:
    name = flag.split("=")[0].split(".")[0]
    assert re.search(rf"^ +{name}:", known, re.MULTILINE), flag
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
