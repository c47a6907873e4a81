"""`python -m ttctune.demo`: the main job on what ships with the package."""
