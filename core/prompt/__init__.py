"""What the words of a prompt say about the subjects of a scene: which reference is whose, and where each stands."""
