"""One factory per asset kind."""
