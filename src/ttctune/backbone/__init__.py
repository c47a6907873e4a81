"""A pre-trained model as the method sees it: blocks, sites, norms, head, and the pictures it wants."""
