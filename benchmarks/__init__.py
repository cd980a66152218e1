"""Benchmarks: what the library costs, measured against the nearest thing without it."""
