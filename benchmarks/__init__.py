"""Benchmarks of the product: latency, accuracy, delivery, memory, and the demo."""
