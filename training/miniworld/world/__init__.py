"""The renderer: creatures, poses, relations, captions and pixels with exact annotation; it knows no model."""
