"""The pod network of one node: addresses, veth pairs on a bridge, routes to the other nodes."""
