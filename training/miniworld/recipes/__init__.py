"""What trains the miniworld's models."""
