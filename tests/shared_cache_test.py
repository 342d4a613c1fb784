"""Tests of what the benchmark finds out about the cores."""

import os

import pytest

from tests.benchmarks import shared_cache


def test_rate_is_a_share_of_a_cores_own():
  share = shared_cache.now()
  if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
    assert share is None
    return
  # Others may be at work on these cores: only nonsense is excluded.
  assert 0.0 < share < 20.0


@pytest.mark.parametrize(
  ("shares", "expected"),
  [
    ([0.9, 0.8], "together"),
    ([0.3, 0.4, 0.35], "apart"),
    ([0.9, 0.3], "moved"),
    ([0.9, None], "unknown"),
    ([], "unknown"),
  ],
)
def test_where_the_cores_were(shares, expected):
  assert shared_cache.where(shares) == expected
