"""What clients are told when the agent of a node refuses a call or cannot be reached."""

import grpc

from api.errors import ApiError, BadRequest, InternalError, NotFound

# What grpcio says instead of the agent's own words when a write crosses the end of the call.
_WRITE_FAILED = "Internal error from Core"


def refusal(error: grpc.aio.AioRpcError, node: str) -> ApiError:
    """Return what a client is told when a node agent refuses a call or cannot be reached."""
    text = error.details() or error.code().name
    if text == _WRITE_FAILED:
        return InternalError(f"the agent of node {node} ended the call while data was sent to it")
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(text)
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return BadRequest(text)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return InternalError(f"error dialing the agent of node {node}: {text}")
    return InternalError(f"the agent of node {node} failed: {text}")
