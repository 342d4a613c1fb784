"""The page in a real browser; run with "make test-web"."""

import contextlib
import os
import pathlib
import shutil
import time

import conftest
import numpy as np
import pytest
import soundfile
import web_server

from w2l_jax import video

pytestmark = [pytest.mark.web, pytest.mark.timeout(1800)]
pytest.importorskip("gradio")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 400_000  # Milliseconds that a slow machine may take.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
  server = web_server.Server(
    tmp_path_factory.mktemp("web"), "--max_seconds=6", "--max_megabytes=5"
  )
  yield server
  assert server.stop() == 0
  assert "ended; its files are removed" in server.said()
  # Nothing stays.
  assert server.files() == []


@pytest.fixture(scope="module")
def media(tmp_path_factory):
  """Files of all kinds."""
  folder = tmp_path_factory.mktemp("media")
  conftest.write_video(
    folder / "face.mp4", conftest.talking_frames(30), conftest.babble(1.2)
  )
  two = [
    np.concatenate(pair, axis=1)
    for pair in zip(
      conftest.talking_frames(20, 1), conftest.talking_frames(20, 2), strict=1
    )
  ]
  conftest.write_video(folder / "two.mp4", two)
  conftest.write_video(
    folder / "no_face.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 25
  )
  (folder / "garbage.mp4").write_bytes(b"no video " * 1000)
  (folder / "large.mp4").write_bytes(bytes(6_000_000))
  for name, seconds in (("short", 0.8), ("longer", 1.6), ("too_long", 7.0)):
    soundfile.write(
      folder / f"{name}.wav", conftest.babble(seconds), conftest.SAMPLE_RATE
    )
  return folder


@pytest.fixture
def browser():
  playwright = pytest.importorskip("playwright.sync_api")
  installed = next(filter(None, map(shutil.which, _BROWSERS)), None)
  with playwright.sync_playwright() as p:
    browser = p.chromium.launch(
      executable_path=installed,
      args=[
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
      ],
    )
    yield browser
    browser.close()


@contextlib.contextmanager
def visit(browser, server):
  """A person's own browser window; what it complains of fails the test."""
  context = browser.new_context(viewport={"width": 1300, "height": 900})
  page = context.new_page()
  complaints = []

  def request(r):
    if not r.url.startswith((server.address, "data:", "blob:")):
      complaints.append(f"asks for {r.url}")

  def failed(r):
    # The page itself ends its streams of news, and loading of videos.
    if r.failure != "net::ERR_ABORTED":
      complaints.append(f"{r.url}: {r.failure}")

  page.on("request", request)
  page.on("requestfailed", failed)
  page.on(
    "console",
    lambda m: m.type == "error" and complaints.append(m.text),
  )
  page.on("pageerror", lambda e: complaints.append(str(e)))
  page.goto(server.address)
  page.wait_for_selector("#run", timeout=_SECONDS)
  yield page
  assert complaints == []
  context.close()


def give(page, where, path):
  """Uploads a file."""
  page.set_input_files(f"#{where} input[type=file]", str(path))
  page.wait_for_selector(f"#{where} >> text={path.suffix}", timeout=_SECONDS)


def wait_for(page, where, text):
  """Waits until a text box says something; returns all of it."""
  page.wait_for_function(
    "([where, text]) => document.querySelector(`#${where} textarea`)"
    ".value.includes(text)",
    arg=[where, text],
    timeout=_SECONDS,
  )
  return page.input_value(f"#{where} textarea")


def picture(page, name):
  """Takes a picture, to be looked at: in $W2L_PICTURES, if that is set."""
  folder = os.environ.get("W2L_PICTURES")
  if folder:
    page.screenshot(path=pathlib.Path(folder) / f"{name}.png", full_page=True)


def result(page):
  """Where the result's file is."""
  page.wait_for_selector("#result video", timeout=_SECONDS)
  url = page.evaluate("document.querySelector('#result video').currentSrc")
  return url.split("file=", 1)[1]


def test_upload_preview_run_play(browser, server, media):
  with visit(browser, server) as page:
    picture(page, "1_start")
    give(page, "face", media / "face.mp4")
    assert wait_for(page, "found", "face") == "one face; its lips move"
    page.wait_for_selector("#preview img", timeout=_SECONDS)
    give(page, "speech", media / "longer.wav")
    picture(page, "2_preview")
    page.click("#run")
    page.wait_for_selector("#result .progress-text", timeout=_SECONDS)
    picture(page, "3_progress")
    assert "40 frames" in wait_for(page, "said", "frames")
    path = result(page)
    assert len(list(video.frames_at_rate(path, 25))) == 40
    page.evaluate(
      "v = document.querySelector('#result video'); v.muted = true; v.play()"
    )
    page.wait_for_function(
      "document.querySelector('#result video').currentTime > 0.5",
      timeout=_SECONDS,
    )
    picture(page, "4_plays")


def test_choice_of_face(browser, server, media):
  with visit(browser, server) as page:
    give(page, "face", media / "two.mp4")
    wait_for(page, "found", "2 faces, from left to right")
    page.click("#who >> text=2")
    wait_for(page, "found", "lips that move: 2")
    picture(page, "5_choice")
    page.click("#who >> text=3")
    wait_for(page, "found", "none of them is meant")
    page.click("#who >> text=2")
    give(page, "speech", media / "short.wav")
    page.click("#run")
    wait_for(page, "said", "20 frames")
    made = np.stack(list(video.frames_at_rate(result(page), 25))).astype(int)
    given = np.stack(list(video.frames_at_rate(str(media / "two.mp4"), 25)))
    changed = np.abs(made - given).mean(axis=(0, 1, 3))
    left, right = np.split(changed, 2)
    assert left.max() < 8 < right.max()


def test_examples_stay_when_old_files_are_removed(browser, tmp_path):
  server = web_server.Server(tmp_path, "--keep_minutes=0.1")
  try:
    time.sleep(13)
    with visit(browser, server) as page:
      for example, says in (
        ("Two faces", "2 faces, from left to right"),
        ("A video says", "one face"),
      ):
        page.click(f"text={example}")
        wait_for(page, "found", says)
        page.wait_for_selector("#speech >> text=.flac", timeout=_SECONDS)
  finally:
    server.stop()


def test_a_photo_and_the_microphone(browser, server, media):
  with visit(browser, server) as page:
    page.click("text=A photo speaks")
    wait_for(page, "found", "one face")
    page.wait_for_selector("#preview img", timeout=_SECONDS)
    picture(page, "6_photo")  # The README's.
    # Speaking takes the place of the example's file.
    page.click("#microphone >> text=Record")
    page.wait_for_timeout(1500)
    page.click("#microphone button:has-text('Stop')")
    page.wait_for_selector("#speech >> text=Drop File Here", timeout=_SECONDS)
    page.wait_for_selector("#microphone >> text=0:0", timeout=_SECONDS)
    page.click("#run")
    wait_for(page, "said", "frames")
    assert 20 < len(list(video.frames_at_rate(result(page), 25))) < 150
    picture(page, "6_microphone")


@pytest.mark.parametrize(
  ("file", "message"),
  [
    ("garbage.mp4", "garbage.mp4: not a video or sound file"),
    ("no_face.mp4", "no_face.mp4: no face found in"),
  ],
)
def test_what_cannot_be_used(browser, server, media, file, message):
  with visit(browser, server) as page:
    give(page, "face", media / file)
    said = wait_for(page, "found", message)
    assert "/" not in said.replace("video/sound", "")
    give(page, "speech", media / "short.wav")
    page.click("#run")
    wait_for(page, "said", message)
    picture(page, f"7_{file.removesuffix('.mp4')}")
    # The page goes on.
    page.click("#face [aria-label=Clear], #face [title=Clear]")
    give(page, "face", media / "face.mp4")
    wait_for(page, "found", "one face")
    page.click("#run")
    wait_for(page, "said", "20 frames")


def test_limits(browser, server, media):
  with visit(browser, server) as page:
    page.click("#run")
    wait_for(page, "said", "choose a face first")
    give(page, "face", media / "face.mp4")
    give(page, "speech", media / "too_long.wav")
    page.click("#run")
    wait_for(page, "said", "longer than the 6 seconds")
    page.click("#speech [aria-label=Clear], #speech [title=Clear]")
    page.set_input_files("#speech input[type=file]", str(media / "large.mp4"))
    page.wait_for_selector("text=maximum allowed size", timeout=_SECONDS)
    picture(page, "8_limits")


def test_two_at_once(browser, server, media):
  with (
    visit(browser, server) as one,
    visit(browser, server) as two,
  ):
    for page, speech in ((one, "longer.wav"), (two, "short.wav")):
      give(page, "face", media / "face.mp4")
      give(page, "speech", media / speech)
    one.click("#run")
    two.click("#run")
    two.wait_for_timeout(1000)
    picture(two, "9_waiting")
    assert "40 frames" in wait_for(one, "said", "frames")
    assert "20 frames" in wait_for(two, "said", "frames")
    for page, frames in ((one, 40), (two, 20)):
      assert len(list(video.frames_at_rate(result(page), 25))) == frames
    assert result(one) != result(two)
    picture(two, "9_two_at_once")
