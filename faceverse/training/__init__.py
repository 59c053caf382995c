"""Training code that builds the files in weights/ from openly licensed sources."""
