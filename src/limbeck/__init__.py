"""limbeck: make a trained neural network small and fast, and prove that nobody will notice."""
