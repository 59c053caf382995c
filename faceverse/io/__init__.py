"""Files: photographs, pickles read without running their code, atomic writing."""
