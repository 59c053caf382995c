"""The web page: `page` is the Gradio app, `handlers` what it does, `viewer` the files of its 3D view."""
