"""Reading and writing files: photographs, pickles that are never run, files that are written atomically."""
