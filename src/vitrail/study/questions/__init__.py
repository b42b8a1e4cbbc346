"""One question a file: its conditions, its measurement, its conclusion."""
