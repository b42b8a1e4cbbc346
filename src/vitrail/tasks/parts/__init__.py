"""The task `parts`: one part per point of a cloud."""
