"""A scene on its engine's own wiring: which model it is, what its text encoder saw, what its own nodes make of it."""
