"""The web page: `page` is the Gradio app, `fit_jobs` and `tracking_jobs` do its work, `view_files` feeds the view."""
