"""The words of a prompt about a scene's subjects: the reference of each, and its place."""
