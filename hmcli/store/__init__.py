"""Bytes on disk: manifests, Zarr arrays, video files, weights."""
