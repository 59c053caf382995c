"""The detail module: displacement and colour of the skin from conditional StyleGAN generators (Wang et al. 2022)."""
