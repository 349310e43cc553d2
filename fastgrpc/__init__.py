"""HTTP/2 and gRPC in pure Python: a sans-I/O core, and thin asyncio ends.

    hpack       header blocks (RFC 7541)
    frames      frames as bytes (RFC 9113, 4 and 6)
    connection  one HTTP/2 connection, either side: bytes in, events and bytes out
    calls       what gRPC puts on top: paths, metadata, deadlines, messages, status
    server      an asyncio server
    channel     an asyncio client

docs/fastgrpc.md shows how to use it.
"""
