"""The page: what is on it, and which of web_jobs.py's work each button does.

Importing it imports Gradio, whose settings launch/web.py makes before.
"""

import os
import time

import fastapi
import fastapi.responses
import gradio as gr

from launch import sample, web_jobs
from w2l_jax import detectors, lip_sync_options, sources

# Of people waiting; further ones are told so.
_QUEUE = 20
# Seconds between two pieces of news of a bar.
_TELL_SECONDS = 0.3
# Not only as many as were found: what the page holds and what the server knows
# of it then never differ.
_WHO = ["largest", "central", "all", "1", "2", "3", "4"]
# Of lip_sync_options: what is on the page, and what it means.
_WORDS = {
  "loop": "Video shorter than the speech",
  "silence": "Pauses in the speech",
  "no_face": "Frames without a face",
  "paste": "What is drawn",
  "reference": "Whose looks a frame's face takes",
}
_HINT = """
# Lip-sync
A face and speech go in; the same face saying the speech comes out. Only use
faces and voices whose owners agree, and say that the result is synthetic.
"""


def build(studio: web_jobs.Studio, examples: list[sample.Example]) -> gr.Blocks:
  """Returns the page.

  Args:
    studio: does the work.
    examples: to be clicked.
  """
  limits = studio.limits
  usual = lip_sync_options.Options(**studio.syncer.config.get("inference", {}))
  with gr.Blocks(title="Lip-sync", analytics_enabled=False) as page:
    gr.Markdown(_HINT)
    with gr.Row():
      with gr.Column():
        face = gr.File(
          label=f"Face: a video or a photo, up to {limits.megabytes} MB",
          elem_id="face",
          height=150,
        )
        preview = gr.Image(
          label="The face whose lips will move is green",
          elem_id="preview",
          interactive=False,
          buttons=[],
          height=300,
        )
        found = gr.Textbox(
          label="Found", elem_id="found", interactive=False, lines=2
        )
        who = gr.Radio(
          _WHO,
          value=str(usual.faces),
          label="Whose lips move, where there are several faces",
          elem_id="who",
        )
      with gr.Column():
        speech = gr.File(
          label="Speech: any file with sound, up to "
          f"{limits.seconds:.0f} seconds",
          elem_id="speech",
          height=150,
        )
        microphone = gr.Audio(
          label="or speak",
          sources=["microphone"],
          type="filepath",
          elem_id="microphone",
          buttons=[],
        )
        with gr.Accordion("Options", open=False, elem_id="options"):
          words = {
            name: gr.Dropdown(
              list(lip_sync_options.CHOICES[name]),
              value=getattr(usual, name),
              label=f"{label} ({name})",
            )
            for name, label in _WORDS.items()
          }
          detector = gr.Dropdown(
            sorted(detectors.DETECTORS),
            value=studio.syncer.config["preparation"]["detector"],
            label="Face detector (detector)",
          )
          with gr.Row():
            pads = [
              gr.Number(value, precision=0, label=side, min_width=60)
              for side, value in zip(
                ("top", "bottom", "left", "right"), usual.pads, strict=True
              )
            ]
          gr.Markdown("Pixels to add to the face's box (pads), above.")
          smaller = gr.Slider(1, 8, 1, step=1, label="Make smaller by")
          rotate = gr.Checkbox(label="Turn by 90 degrees clockwise")
          static = gr.Checkbox(label="Take the first picture only")
      with gr.Column():
        run = gr.Button("Lip-sync", variant="primary", elem_id="run")
        result = gr.Video(
          label="Result",
          elem_id="result",
          interactive=False,
          buttons=["download"],
          height=300,
        )
        said = gr.Textbox(
          label="What was done", elem_id="said", interactive=False, lines=4
        )
    look_at = [face, who, detector, smaller, rotate]
    if examples:
      # Served from where they are: Gradio's copies would be removed with what
      # people upload.
      gr.set_static_paths(
        sorted(
          {os.path.dirname(p) for e in examples for p in (e.face, e.speech)}
        )
      )
      gr.Examples(
        [[e.face, e.speech] for e in examples],
        inputs=[face, speech],
        example_labels=[e.label for e in examples],
        api_visibility="private",
      )

    def options(who, detector, smaller, rotate, **others):
      edit = sources.Edit(int(smaller), bool(rotate))
      return {"faces": who, "detector": detector, "edit": edit, **others}

    def look(face, who, *others):
      if not face:
        return None, ""
      try:
        seen = studio.look(web_jobs.Request(face, "", options(who, *others)))
      except web_jobs.Refused as e:
        return None, str(e)
      return web_jobs.as_rgb(seen.picture), str(seen)

    def lipsync(
      face, speech, microphone, who, detector, smaller, rotate, static, *others,
      progress=gr.Progress(),  # noqa: B008 (Gradio looks for it)
    ):  # fmt: skip
      progress(0, desc="reading")
      told = 0.0

      def tell(doing, done, total):
        nonlocal told
        if done and time.monotonic() - told < _TELL_SECONDS:
          return
        told = time.monotonic()
        progress((done, total), desc=doing, unit="frames")

      chosen = options(
        who,
        detector,
        smaller,
        rotate,
        static=bool(static),
        pads=tuple(int(p or 0) for p in others[:4]),
        **dict(zip(_WORDS, others[4:], strict=True)),
      )
      request = web_jobs.Request(face or "", speech or microphone or "", chosen)
      try:
        return studio.lipsync(request, tell)
      except web_jobs.Refused as e:
        return None, str(e)

    gr.on(
      [face.change, who.input, detector.input, smaller.release, rotate.input],
      look,
      look_at,
      [preview, found],
      # The newest wins, and looking does not wait for drawing.
      trigger_mode="always_last",
      concurrency_limit=1,
      api_visibility="private",
    )
    # Whichever speech was given last counts.
    speech.upload(
      lambda: None, None, microphone, queue=False, api_visibility="private"
    )
    microphone.stop_recording(
      lambda: None, None, speech, queue=False, api_visibility="private"
    )
    run.click(
      lipsync,
      [
        face, speech, microphone, who, detector, smaller, rotate, static, *pads,
        *words.values(),
      ],
      [result, said],
      concurrency_limit=1,  # One accelerator.
      api_visibility="private",
    )  # fmt: skip
  return page.queue(max_size=_QUEUE)


def _unanswered(request: fastapi.Request, error: Exception):
  """What a request gets that Gradio cannot answer; the log has the error.

  An upload without a name is one of those.
  """
  del error  # The server raises it again, into its log.
  said, status = "the page cannot answer this; its log says why", 500
  if request.url.path.endswith("/upload"):
    said, status = (
      (
        "this was not taken: expected one file, with a name; otherwise the "
        "page's log says why"
      ),
      400,
    )
  return fastapi.responses.JSONResponse({"detail": said}, status)


def serve(
  page: gr.Blocks, host: str, port: int, limits: web_jobs.Limits, files: str
) -> str:
  """Serves the page in threads; returns its address.

  Args:
    page: of `build`.
    host: address to listen at.
    port: to listen at; 0 takes a free one.
    limits: of uploads.
    files: folder of all that is uploaded and made.
  """
  _, address, _ = page.launch(
    server_name=host,
    server_port=port or None,
    share=False,
    quiet=True,
    prevent_thread_lock=True,
    max_file_size=limits.megabytes * 1_000_000,
    # Else files whose names begin with a dot are refused without a word where
    # the temporary folder lies below the working directory.
    allowed_paths=[files],
    app_kwargs={"exception_handlers": {Exception: _unanswered}},
    enable_monitoring=False,
    run_history=False,
    footer_links=[],
    ssr_mode=False,
    # Gradio's own themes are with fonts of others.
    theme=gr.themes.Base(
      font=["system-ui", "sans-serif"], font_mono=["monospace"]
    ),
    inbrowser=False,
  )
  return address
