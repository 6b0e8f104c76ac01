"""Training with parameters sharded among ranks."""
