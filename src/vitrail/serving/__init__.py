"""HTTP server for models: bounded queues, dynamic batches, limits, health, metrics."""
