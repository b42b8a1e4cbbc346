"""Image restoration: super-resolution, denoising, removal of JPEG artifacts."""
