"""Reading single datasets of a remote HDF5 file by byte ranges."""
