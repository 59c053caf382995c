"""Camera, illumination, meshes and rasterization: functions on arrays and tensors that know no face."""
