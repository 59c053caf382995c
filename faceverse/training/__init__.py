"""Training: what builds the files in weights/ from openly licensed sources."""
