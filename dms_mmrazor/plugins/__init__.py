"""What a search must know of single libraries, one folder for each."""
