"""Progress: bars, silence, or somebody's own."""

import pytest

from w2l_jax import progress_bars


def test_somebody_is_told():
  told = []
  with progress_bars.shown(
    "abc", lambda *x: told.append(x), "reading", None
  ) as shown:
    assert list(shown) == ["a", "b", "c"]
  assert told == [("reading", i, None) for i in range(4)]


def test_who_is_told_may_end_it():
  def stop(doing, done, total):
    if done == 2:
      raise InterruptedError

  taken = []
  with (
    pytest.raises(InterruptedError),
    progress_bars.shown(range(9), stop, "reading", 9) as shown,
  ):
    for x in shown:
      taken.append(x)
  assert taken == [0, 1]


@pytest.mark.parametrize("progress", [False, True])
def test_bars(capsys, progress):
  with progress_bars.shown(range(3), progress, "reading", 3) as shown:
    assert list(shown) == [0, 1, 2]
  assert ("reading" in capsys.readouterr().err) == progress
