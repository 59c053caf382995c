"""Parts of a head beside its skin: teeth, tongue, eyes, lashes and brows, bound to the mesh of a model."""
