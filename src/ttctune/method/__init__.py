"""The paper, one file a step: alignment, importance, selection, channels, merge. Needs torch alone."""
