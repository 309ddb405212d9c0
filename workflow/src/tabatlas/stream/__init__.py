"""Stream: frozen minibatches of cells, from the training cache or from the experiment itself."""
