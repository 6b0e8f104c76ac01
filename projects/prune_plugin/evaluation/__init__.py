"""Measuring models: metrics on the test data, parameters, FLOPs, latency, memory per rank."""
