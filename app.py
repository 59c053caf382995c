"""Serves the web page; address and port from GRADIO_SERVER_NAME and GRADIO_SERVER_PORT."""

import os
import tempfile

from demo import hosting

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_TEMP_DIR", os.path.join(tempfile.gettempdir(), "faceverse-page"))
hosting.limit_arenas()

from demo.api import mcp_options  # noqa: E402 (Gradio reads the variables when it is imported)
from demo.page import build, launch_options  # noqa: E402

page = build(detail=hosting.wants_detail())
demo = page.demo
gpu = hosting.declare_gpu()

if __name__ == "__main__":
    demo.launch(prevent_thread_lock=True, **launch_options(page.webcams), **mcp_options())
    hosting.keep_clean(page.sessions, page.sessions.root.parent)
    if hosting.wants_warm_up():
        page.warm_up()
    demo.block_thread()
