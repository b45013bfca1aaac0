"""The spec tree and the table of commands -> a folder that agents learn the product from; a folder -> its faults."""
