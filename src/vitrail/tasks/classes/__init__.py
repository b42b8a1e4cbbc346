"""Parts of classifiers of any input: scores, calibration, class figures, and their part of the report."""
