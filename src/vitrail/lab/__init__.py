"""Using a trained model: evaluate, predict, report, and a look at the machine."""
