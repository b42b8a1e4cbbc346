"""Point clouds and meshes: readers of files, class folders, voxels, sampling of surfaces, analytic shapes."""
