"""Parts of a head beside its skin, bound to the mesh of a model: teeth, tongue, eyes, lashes, brows, hair, beards."""
