"""Synthetic DICOM files with the values that a reader must find in them."""
