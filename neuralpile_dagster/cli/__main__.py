"""``python -m neuralpile_dagster.cli``: the same command line as ``neuralpile``."""

from neuralpile_dagster.cli import main

if __name__ == "__main__":
    main()
