"""What batches of data tell of a model: statistics of gradients, activations and inputs."""
