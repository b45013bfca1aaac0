"""Weight files of ours and of others -> parameters of the network, with a report of what fitted."""
