"""What a model is worth and what it costs: metrics, parameters, FLOPs, latency, memory."""
