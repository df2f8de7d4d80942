"""From labelled structures in files to padded batches, on the host with NumPy."""
