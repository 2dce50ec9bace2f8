"""The numbers of the three papers, one file a family."""
