"""Use of a trained model: evaluation, prediction, report, and diagnostics of the machine."""
