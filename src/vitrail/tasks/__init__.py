"""What a model is asked to do: model, loss, metric and result type."""
