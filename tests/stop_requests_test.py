"""Signals are collected; a later one leaves, whatever the process does."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import time

import pytest

from w2l_jax import stop_requests


def send(number):
  os.kill(os.getpid(), number)
  time.sleep(0.2)


def test_signals_are_collected_and_handlers_put_back():
  before = [signal.getsignal(n) for n in stop_requests.SIGNALS]
  with stop_requests.collected() as received:
    assert received == []
    send(signal.SIGTERM)
    assert received == [signal.SIGTERM]
  assert [signal.getsignal(n) for n in stop_requests.SIGNALS] == before
  with stop_requests.collected() as received:
    assert received == []


def test_a_second_one_takes_its_usual_effect():
  # Python's own, which a shell's background jobs do not have.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  with pytest.raises(KeyboardInterrupt), stop_requests.collected():
    send(signal.SIGINT)
    send(signal.SIGINT)
  signal.signal(signal.SIGINT, before)


def test_there_is_one_collection():
  with stop_requests.collected() as outer:
    send(signal.SIGTERM)
    with stop_requests.collected() as inner:
      assert inner is outer and inner == [signal.SIGTERM]


def test_outside_the_main_thread_there_are_none():
  def collect():
    with stop_requests.collected() as received:
      return received

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    assert pool.submit(collect).result() == []


SCRIPT = """
import ctypes
from w2l_jax import stop_requests
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_init(mutex, None)
with stop_requests.collected(leave_at_once=True):
  print("ready", flush=True)
  # Waits for itself for ever, as a hung collective does: no handler of
  # Python's runs.
  libc.pthread_mutex_lock(mutex)
  libc.pthread_mutex_lock(mutex)
"""


def test_a_later_one_leaves_at_once():
  """Two at once are one, delivered to a group and passed on by a launcher."""
  process = subprocess.Popen(
    [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE
  )
  try:
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(3.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
  finally:
    process.kill()
    process.stdout.close()
