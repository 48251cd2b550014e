"""Pictures for people: boxes, dense features, heat maps."""
