"""The cluster's kinds as data: structs, defaults, validation, columns, selectors, patches. No I/O."""
