"""Asset factories: one module per kind of asset. What they compute is in the other rooms."""
