"""Serves the web page; address and port from GRADIO_SERVER_NAME and GRADIO_SERVER_PORT."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from demo.page import build, launch_options  # noqa: E402 (Gradio reads the variable when it is imported)

page = build()
demo = page.demo

if __name__ == "__main__":
    demo.launch(prevent_thread_lock=True, **launch_options())
    page.warm_up()
    demo.block_thread()
