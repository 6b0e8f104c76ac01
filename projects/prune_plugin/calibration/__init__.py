"""Statistics from calibration data: gradients, activations and layer inputs; running layer by layer."""
