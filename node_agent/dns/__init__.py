"""The cluster's names: pure answers and the node-local server that gives them."""
