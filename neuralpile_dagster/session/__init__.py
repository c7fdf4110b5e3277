"""One session made: recording in, files and records out. `build` is for a store, `own_files` for a file without one."""
