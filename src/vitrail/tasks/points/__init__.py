"""The task `points`: one class per point cloud or mesh."""
