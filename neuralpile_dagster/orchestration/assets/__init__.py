"""Asset factories: of a dataset, of a pile, and the overview. What they compute is in the other rooms."""
