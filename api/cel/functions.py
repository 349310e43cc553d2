"""Every function of the language: the standard's, and the libraries that Kubernetes adds."""

from api.cel import collections, libraries, operators
from api.cel.operators import duration, timestamp
from api.cel.registry import FUNCTIONS, as_key, invoke

# Each of these modules fills the table when it is imported.
_FILLED_BY = (operators, collections, libraries)

__all__ = ["FUNCTIONS", "as_key", "duration", "invoke", "timestamp"]
