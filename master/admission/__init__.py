"""Who may change, complete or refuse an object on its way into the store."""
