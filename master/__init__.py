"""One master: the API server, its watch cache, and the controllers and scheduler that run where the store leads."""
