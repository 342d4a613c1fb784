"""A hundred uploads that nobody should make; run with "make test-web-fuzz".

They go the way that the page's own go: /upload, then its two buttons' queue.
"""

import io
import json
import pathlib
import random
import socket
import time
import urllib.parse
import uuid
import zlib

import conftest
import cv2
import numpy as np
import pytest
import soundfile
import web_server

pytestmark = [pytest.mark.web, pytest.mark.slow, pytest.mark.timeout(3600)]
pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")

_MEGABYTES = 20
# What its memory may have grown by after all of them.
_GROWTH = 100 * 2**20
_TRICKS = (
  "../../../../../../tmp/w2l_jax_trick.mp4",
  "..\\..\\w2l_jax_trick.mp4",
  "/tmp/w2l_jax_trick.mp4",
  "....//....//w2l_jax_trick.mp4",
  "%2e%2e%2fw2l_jax_trick.mp4",
  "w2l\x00jax.mp4",
  "w2l\njax.mp4",
  "-rf.mp4",
  "~root.mp4",
  "$(touch w2l_jax_trick).mp4",
  "`touch w2l_jax_trick`.mp4",
  "<img src=x onerror=alert(1)>.mp4",
  "\u202e4pm.ecaf.mp4",
  "\N{PILE OF POO}" * 60 + ".mp4",
  "x" * 5000 + ".mp4",
  ".",
  "..",
  "",
  ".mp4",
  "CON.mp4",
)


class Client:
  """Somebody who talks to the page without a browser."""

  def __init__(self, server):
    self.server = server
    self.api = f"{server.address.rstrip('/')}/gradio_api"
    # A connection for each request: the server closes one that waits for 5 s,
    # and a request that is sent on it just then is lost.
    self.http = httpx.Client(
      timeout=300, limits=httpx.Limits(max_keepalive_connections=0)
    )
    config = self.http.get(f"{server.address.rstrip('/')}/config").json()
    self._components = {c["id"]: c for c in config["components"]}
    name = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    self._face, self._speech = name["face"], name["speech"]
    self._buttons = {
      box: next(d for d in config["dependencies"] if name[box] in d["outputs"])
      for box in ("found", "said")
    }

  def upload(self, name: str, data: bytes):
    """Returns (status, path on the server or what it said)."""
    answer = self.http.post(f"{self.api}/upload", files={"files": (name, data)})
    if answer.status_code == 200:
      return 200, answer.json()[0]
    return answer.status_code, answer.text

  def press(self, box: str, face, speech=None) -> str:
    """Does what changes a text box; returns what it then says."""
    button = self._buttons[box]

    def file(path):
      return path and {
        "path": path,
        "orig_name": "x",
        "meta": {"_type": "gradio.FileData"},
      }

    given = {self._face: file(face), self._speech: file(speech)}
    session = uuid.uuid4().hex
    joined = self.http.post(
      f"{self.api}/queue/join",
      json={
        "data": [
          given.get(i, self._components[i]["props"].get("value"))
          for i in button["inputs"]
        ],
        "fn_index": button["id"],
        "session_hash": session,
      },
    )
    if joined.status_code != 200:
      return f"{joined.status_code} {joined.text}"
    with self.http.stream(
      "GET", f"{self.api}/queue/data", params={"session_hash": session}
    ) as news:
      for line in news.iter_lines():
        if not line.startswith("data:"):
          continue
        message = json.loads(line[5:])
        if message["msg"] == "process_completed":
          output = message["output"]
          if "data" not in output:
            return str(output.get("error"))
          return output["data"][1]
    raise AssertionError("no answer")


def damaged(data: bytes, rng: random.Random) -> bytes:
  """Cuts a file, or writes something else into it."""
  data = bytearray(data)
  kind = rng.randrange(4)
  if kind == 0:
    return bytes(data[: rng.randrange(1, len(data))])
  if kind == 1:  # Single bytes everywhere.
    for _ in range(rng.randrange(1, 200)):
      data[rng.randrange(len(data))] = rng.randrange(256)
  elif kind == 2:  # Its header.
    for _ in range(20):
      data[rng.randrange(min(400, len(data)))] = rng.randrange(256)
  else:  # A hole.
    start = rng.randrange(len(data))
    data[start : start + 2000] = bytes(len(data[start : start + 2000]))
  return bytes(data)


def large_png(side: int) -> bytes:
  """A picture of a few hundred kB that wants `side` * `side` pixels."""

  def chunk(kind, data):
    body = kind + data
    return (
      len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    )

  packer, rows = zlib.compressobj(9), bytes(1 + side // 8)
  packed = b"".join(packer.compress(rows) for _ in range(side))
  head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", head)
    + chunk(b"IDAT", packed + packer.flush())
    + chunk(b"IEND", b"")
  )


def sound(seconds: float, form: str) -> bytes:
  out = io.BytesIO()
  soundfile.write(
    out, conftest.babble(seconds), conftest.SAMPLE_RATE, format=form
  )
  return out.getvalue()


def cases(folder) -> list[tuple[str, str, bytes, bytes | None]]:
  """[(what, name, bytes of the face, bytes of the speech or None)], 97."""
  rng = random.Random(0)
  conftest.write_video(
    folder / "f.mp4", conftest.talking_frames(15), conftest.babble(0.6)
  )
  video = (folder / "f.mp4").read_bytes()
  conftest.write_video(folder / "mute.mp4", conftest.talking_frames(15))
  mute = (folder / "mute.mp4").read_bytes()
  photo = cv2.imencode(".png", conftest.face_picture())[1].tobytes()
  jpeg = cv2.imencode(".jpg", conftest.face_picture())[1].tobytes()
  good = sound(0.6, "WAV")
  found = []
  for i in range(24):
    found.append(("damaged video", f"{i}.mp4", damaged(video, rng), good))
  for i, data in enumerate([photo, jpeg] * 6):
    found.append(
      ("damaged photo", f"{i}.{'jpg' if i % 2 else 'png'}",
       damaged(data, rng), None)
    )  # fmt: skip
  for form in ("WAV", "FLAC", "OGG", "MP3") * 4:
    speech = damaged(sound(0.6, form), rng)
    found.append((f"damaged {form}", "f.mp4", video, speech))
  for form in ("WAV", "FLAC", "OGG", "MP3"):
    found.append(("sound as face", f"{form}.mp4", sound(0.6, form), None))
  found.append(("video without sound as speech", "f.mp4", video, mute))
  found.append(("photo as speech", "f.mp4", video, photo))
  for size in (0, 1, 1000):
    found.append((f"{size} zeros", "zeros.mp4", bytes(size), None))
    found.append((f"{size} zeros as speech", "f.mp4", video, bytes(size)))
  for name in _TRICKS:
    found.append((f"name {name[:30]!r}", name, video, None))
  found.append(("a picture of 900 megapixels", "l.png", large_png(30000), None))
  found.append(("a picture of 60 megapixels", "m.png", large_png(7800), None))
  # Headers that promise more, and less, than there is.
  head = bytearray(good)
  head[40:44] = (2**31 - 1).to_bytes(4, "little")
  found.append(("WAV that promises 2 GB", "f.mp4", video, bytes(head)))
  head[40:44] = (4).to_bytes(4, "little")
  found.append(("WAV that promises 4 bytes", "f.mp4", video, bytes(head)))
  silence = io.BytesIO()
  soundfile.write(silence, np.zeros(48_000 * 3600), 48_000, format="FLAC")
  found.append(("an hour of silence", "f.mp4", video, silence.getvalue()))
  found.append(("text", "t.mp4", b"once upon a time\n" * 99, None))
  found.append(("HTML", "t.html", b"<script>alert(1)</script>", None))
  found.append(
    ("a playlist of others' files", "p.m3u8",
     b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", None)
  )  # fmt: skip
  found.append(
    ("a list of others' files", "p.ffconcat",
     b"ffconcat version 1.0\nfile /etc/passwd\n", None)
  )  # fmt: skip
  for _ in range(3):
    found.append(
      ("damaged video as speech", "f.mp4", video, damaged(video, rng))
    )
  found.append(("too large", "f.mp4", bytes(_MEGABYTES * 1_000_000 + 1), None))
  return found


def send_zeros(server, head: str, chunked: bool, total: int) -> int:
  """Sends zeros for as long as they are taken; returns how many were."""
  url = urllib.parse.urlsplit(server.address)
  sent, block = 0, bytes(2**20)
  part = (
    b'--X\r\nContent-Disposition: form-data; name="files"; '
    b'filename="zeros.mp4"\r\n\r\n'
  )
  with socket.create_connection((url.hostname, url.port), 60) as s:
    s.sendall(
      f"POST /gradio_api/upload HTTP/1.1\r\nHost: {url.netloc}\r\n"
      f"Content-Type: multipart/form-data; boundary=X\r\n{head}\r\n\r\n"
      .encode()
    )  # fmt: skip
    try:
      s.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
      while sent < total:
        s.sendall(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
        sent += len(block)
    except (ConnectionError, TimeoutError):
      pass
  return sent


@pytest.fixture
def server(tmp_path):
  server = web_server.Server(
    tmp_path,
    f"--max_megabytes={_MEGABYTES}",
    "--max_seconds=10",
    "--noexamples",
  )
  yield server
  server.stop()


def test_a_hundred_uploads(server, tmp_path, tmp_path_factory):
  client = Client(server)
  all_cases = cases(tmp_path_factory.mktemp("cases"))
  good = next(d for what, _, d, _ in all_cases if what.startswith("name"))
  speech = sound(0.6, "WAV")

  def use():
    """An ordinary visit."""
    face, words = client.upload("a.mp4", good), client.upload("a.wav", speech)
    assert client.press("found", face[1]) == "one face; its lips move"
    assert "15 frames" in client.press("said", face[1], words[1])

  use()
  use()
  before = server.memory()
  counts = {"used": 0, "refused": 0, "not taken": 0}
  for what, name, face, words in all_cases:
    began = time.monotonic()
    status, path = client.upload(name, face)
    if status != 200:
      assert status in (400, 413, 422), (what, status, path)
      said, kind = path, "not taken"
    elif words is None:
      said = client.press("found", path)
      kind = "used" if "lips" in said else "refused"
    else:
      spoken = client.upload("speech.wav", words)
      if spoken[0] == 200:
        said = client.press("said", path, spoken[1])
        kind = "used" if "frames, made" in said else "refused"
      else:
        said, kind = spoken[1], "not taken"
    counts[kind] += 1
    print(
      f"{what}: {time.monotonic() - began:.1f} s: {said[:150]!r}", flush=True
    )
    assert said and len(said) < 600, (what, said)
    for secret in ("Traceback", str(tmp_path), "unexpected", "None"):
      assert secret not in said, (what, said)
    assert server.process.poll() is None, what
  # Files that were never uploaded.
  for path in ("/etc/passwd", str(tmp_path / "log.txt")):
    said = client.press("found", path)
    assert "lips" not in said
    print(f"a path of the server: {said[:150]!r}", flush=True)
    counts["refused"] += 1
  # 1 GB that says it were small, and 1 GB that does not say how much it is.
  for head, chunked in (
    ("Content-Length: 1000", False),
    ("Transfer-Encoding: chunked", True),
  ):
    taken = send_zeros(server, head, chunked, 2**30)
    print(f"1 GB, {head}: {taken / 2**20:.0f} MB were sent", flush=True)
    counts["not taken"] += 1
    assert server.process.poll() is None
  use()
  # Give it a moment to give memory back.
  time.sleep(5)
  growth = server.memory() - before
  print(
    f"{sum(counts.values())} uploads: {counts}; memory {before / 2**20:.0f} MB "
    f"before, {growth / 2**20:+.0f} MB after"
  )
  assert sum(counts.values()) == 101
  assert growth < _GROWTH
  # Who read files has ended.
  assert server.children() == []
  # No file is anywhere but in its temporary folder, and of the gigabytes
  # nothing stayed.
  (temporary,) = (server.home / "tmp").iterdir()
  outside = [
    f for f in server.files() if not f.startswith(f"tmp/{temporary.name}/")
  ]
  assert outside == []
  assert max(f.stat().st_size for f in temporary.rglob("*")) < 21e6
  assert not list(conftest.REPOSITORY.rglob("*w2l_jax_trick*"))
  assert not list(pathlib.Path("/tmp").glob("*w2l_jax_trick*"))
  assert server.stop() == 0
  assert server.files() == []
