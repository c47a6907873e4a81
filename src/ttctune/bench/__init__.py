"""Methods to compare with, in the same loop and on the same data."""
