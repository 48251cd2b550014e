"""What nodes do, step by step: the sockets' values in, core and the host called, the sockets' values out."""
