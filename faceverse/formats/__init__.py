"""Files that heads are written to and read from."""
