"""The web page: `page.build()` makes the Gradio app, `handlers` does the work, `viewer` writes what the 3D view reads."""
