"""Split: the experiment's obs → train, validation and test of whole donors, proved disjoint."""
