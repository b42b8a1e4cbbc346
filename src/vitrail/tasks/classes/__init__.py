"""What classifiers of any input share: scores, calibration, class figures, and their part of the report."""
