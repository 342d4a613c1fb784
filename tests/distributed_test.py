"""How processes find each other: what flags and environments say."""

import pytest
from absl.testing import flagsaver

from launch import distributed


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({}, False),
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),  # the batch script
    ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4"}, True),
    ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1"}, False),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
    ({"JOB_COMPLETION_INDEX": "0"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
  ],
)
def test_clusters_are_recognised(environment, expected):
  assert distributed.in_a_cluster(environment) == expected


VARIABLES = {
  "JAX_COORDINATOR_ADDRESS": "host:1",
  "JAX_NUM_PROCESSES": "3",
  "JAX_PROCESS_ID": "2",
}


def test_flags_come_before_variables():
  assert distributed.explicit({}) is None
  assert distributed.explicit(VARIABLES) == {
    "coordinator_address": "host:1",
    "num_processes": 3,
    "process_id": 2,
  }
  with flagsaver.flagsaver(process_id=0):
    assert distributed.explicit(VARIABLES)["process_id"] == 0
  # A cluster that JAX knows may use one of the names for itself.
  inside = {"OMPI_COMM_WORLD_SIZE": "2", "JAX_COORDINATOR_ADDRESS": "host:1"}
  assert distributed.explicit(inside) is None


def test_all_variables_together_win_over_a_cluster():
  inside = {"JOB_COMPLETION_INDEX": "0", **VARIABLES}
  assert distributed.explicit(inside)["process_id"] == 2


def test_open_mpi_numbers_its_processes():
  """Open MPI 5, which JAX does not detect, needs a coordinator alone."""
  inside = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
  assert distributed.explicit(inside) is None
  with flagsaver.flagsaver(coordinator="host:1"):
    assert distributed.explicit(inside) == {
      "coordinator_address": "host:1",
      "num_processes": 4,
      "process_id": 3,
    }


def test_what_is_missing_is_named():
  with (
    flagsaver.flagsaver(coordinator="host:1", num_processes=2),
    pytest.raises(distributed.DistributedError, match="^--process_id missing"),
  ):
    distributed.explicit({})
  with (
    flagsaver.flagsaver(coordinator="h:1", num_processes=2, process_id=2),
    pytest.raises(distributed.DistributedError, match="expected 0 to 1"),
  ):
    distributed.explicit({})
