"""Threads between stages: order, errors, bounds, and that they end."""

import itertools
import threading
import time

import pytest

from w2l_jax import pipeline


def threads():
  return threading.active_count()


@pytest.fixture(autouse=True)
def none_left():
  before = threads()
  yield
  assert threads() == before


@pytest.mark.parametrize("depth", [1, 3])
def test_order(depth):
  found = pipeline.in_thread((i * i for i in range(50)), depth)
  assert list(found) == [i * i for i in range(50)]
  assert list(pipeline.in_thread([], depth)) == []


def test_stages_work_at_the_same_time():
  """Each waits for the other in the middle of its work."""
  together = threading.Barrier(2, timeout=60)

  def source():
    for i in range(20):
      yield i
      together.wait()

  for _ in pipeline.in_thread(source(), 2):
    together.wait()


def test_a_fast_stage_waits():
  made = []
  items = pipeline.in_thread((made.append(i) for i in itertools.count()), 2)
  next(items)
  time.sleep(0.3)
  # One was taken, two wait and one is in hand.
  assert len(made) == 4
  items.close()
  time.sleep(0.2)
  assert len(made) == 4


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("stages", [1, 3])
def test_errors_come_through(error, stages):
  closed = []

  def source():
    try:
      yield from range(5)
      raise error("mine")
    finally:
      closed.append(True)

  items = source()
  for _ in range(stages):
    items = pipeline.in_thread(items, 1)
  found = []
  with pytest.raises(error, match="mine"):
    for item in items:
      found.append(item)
  assert found == list(range(5)) and closed == [True]


def test_closing_the_last_stage_closes_all():
  closed = []

  def source():
    try:
      yield from itertools.count()
    finally:
      closed.append(threading.current_thread())

  def stage(items):
    for item in items:
      yield item + 1

  items = pipeline.in_thread(
    stage(pipeline.in_thread(stage(pipeline.in_thread(source(), 2)), 2)), 2
  )
  assert [next(items) for _ in range(3)] == [2, 3, 4]
  items.close()
  deadline = time.monotonic() + 5
  while not closed and time.monotonic() < deadline:
    time.sleep(0.01)
  assert len(closed) == 1


def test_a_stage_that_fails_closes_those_before():
  """Even while somebody keeps the exception."""

  def fail(items):
    for item in items:
      if item == 3:
        raise ValueError("mine")
      yield item

  first = pipeline.in_thread(itertools.count(), 2)
  second = pipeline.stage(lambda items: (i for i in items), first, 2)
  before = threads()
  with pytest.raises(ValueError, match="mine") as kept:
    list(pipeline.stage(fail, second, 2))
  assert threads() == before and kept.value


def test_clock():
  clock = pipeline.Clock()

  def slow():
    for i in range(5):
      time.sleep(0.01)
      yield i

  for _ in clock.items("make", slow()):
    with clock("use"):
      time.sleep(0.02)
  assert 0.05 <= clock.seconds["make"] < 0.15
  assert 0.1 <= clock.seconds["use"] < 0.25
