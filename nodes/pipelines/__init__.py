"""The work of the nodes, step by step: from the sockets' values through core and the host to the outputs."""
