"""HTTP/1.1 for servers in pure Python: a sans-I/O reader and writer, and a thin asyncio end.

    heads       what stands before a body: request line and fields (RFC 9112, 3 and 5)
    reading     one connection's bytes as heads, pieces of bodies and their ends (RFC 9112, 6 and 7)
    inflating   compressed bodies
    writing     answers as bytes
    request     one request as its handler sees it
    peer        one connection: requests in their order, answers, deadlines
    server      listens, and drains when it stops

Fast because clients repeat themselves: the fields of a head are parsed once for all requests that bring the same ones.
What needs the connection itself (websockets, SPDY) is handed, bytes and all, to another protocol.
"""
