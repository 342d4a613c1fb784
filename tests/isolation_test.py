"""Jobs in processes that crash, hang, raise, and are killed."""

import os
import signal
import time

import pytest

from data_prep import isolation


def work(job):
  kind, path = job
  with open(path, "a") as f:
    f.write("x")
  if kind == "dies":
    os.kill(os.getpid(), signal.SIGSEGV)
  if kind == "dies once" and os.path.getsize(path) == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  if kind == "leaves":
    os._exit(3)
  if kind == "hangs":
    time.sleep(600)
  if kind == "raises":
    raise ValueError(f"not {path}")
  return f"did {kind}"


def run(kinds, folder, workers=2, seconds=600.0):
  jobs = [(kind, str(folder / f"{i}")) for i, kind in enumerate(kinds)]
  results = isolation.run(work, jobs, workers, lambda job: seconds)
  return {job[0]: result for job, result in results}


@pytest.fixture
def light_processes(monkeypatch):
  """Forked from a server: they need not import what the tests import."""
  import multiprocessing

  context = multiprocessing.get_context("forkserver")
  monkeypatch.setattr(multiprocessing, "get_context", lambda kind: context)


def test_a_crash_loses_its_job_only(tmp_path, light_processes):
  kinds = ["a", "dies", "b", "dies once", "c", "leaves", "d"]
  results = run(kinds, tmp_path)
  for kind in ("a", "b", "dies once", "c", "d"):
    assert results[kind] == f"did {kind}"
  assert results["dies"] == isolation.Lost(
    "its process died, twice (killed by SIGSEGV)"
  )
  assert "exit status 3" in results["leaves"].reason
  tried = [os.path.getsize(tmp_path / str(i)) for i in range(len(kinds))]
  assert tried == [1, 2, 1, 2, 1, 2, 1]


def test_a_job_that_hangs_is_ended(tmp_path, light_processes):
  start = time.monotonic()
  results = run(["a", "hangs", "b"], tmp_path, seconds=2)
  assert time.monotonic() - start < 60
  assert results["a"] == "did a" and results["b"] == "did b"
  assert results["hangs"] == isolation.Lost("took more than 2 s, twice")


def test_an_error_ends_the_others(tmp_path, light_processes):
  with pytest.raises(ValueError, match=f"not {tmp_path}"):
    run(["hangs", "raises", "a", "b"], tmp_path)
  assert not (tmp_path / "3").exists()


def test_no_jobs(tmp_path):
  assert run([], tmp_path) == {}
