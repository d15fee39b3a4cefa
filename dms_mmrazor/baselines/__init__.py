"""Other ways to choose a structure, on the same units and resources."""
