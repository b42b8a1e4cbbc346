"""Use of a trained model: loading, prediction, evaluation, files of results, and its cost in FLOPs."""
