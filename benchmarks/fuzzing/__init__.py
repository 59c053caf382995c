"""The parts of `bm_fuzz`: seed files of every format that is read, their mutations, and workers with limits."""
