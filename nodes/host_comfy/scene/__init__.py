"""A scene on its engine's own wiring: detection of the engine, recorded text positions, its nodes' conditioning."""
