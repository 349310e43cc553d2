"""What objects of each kind may not be, and what an update may not change of them."""
