"""Limits of the server. Each has a test one below, at, and one above it."""

from dataclasses import dataclass

RESPONSE_CHUNK = 1 << 16
"""Bytes of a response that are handed to the socket at once; with as many unsent bytes it pauses the writer."""


@dataclass(frozen=True)
class Limits:
    """Limits of requests, connections and memory.

    Args:
        body: most bytes of a request body; compressed bodies are refused.
        pixels: most pixels of an image, read from its header before it is decoded.
        drawn_pixels: most pixels of an image whose result is drawn.
        text: most characters of a text.
        inputs: most inputs of a request.
        header: most bytes of one header, its name included.
        headers: most bytes of all headers.
        target: most bytes of path and query.
        memory: most bytes that bodies, decoded inputs and unread responses take together.
        queue: most waiting inputs of a model, in batches.
        wait: most seconds of work ahead of an input that is admitted, by the measured speed; one batch may always wait.
        timeout: seconds of a request, from its first byte to its response.
        header_timeout: seconds until the headers of a request are complete.
        write_timeout: seconds that a client may leave a response unread.
        write_rate: bytes a second that a client must read of a response after that time.
        connections: most open connections; the oldest idle one is closed for a new one. A slow client that is kept
            costs a few kilobytes, one that is closed comes back within a second and costs a new connection each time.
        drain: seconds that accepted requests get after SIGTERM.
        grace: seconds that the server stays reachable after SIGTERM, so that a load balancer sees it is not ready.
    """

    body: int = 20_000_000
    pixels: int = 25_000_000
    drawn_pixels: int = 4_000_000
    text: int = 100_000
    inputs: int = 16
    header: int = 8192
    headers: int = 32_768
    target: int = 2048
    memory: int = 1 << 30
    queue: int = 4
    wait: float = 1.0
    timeout: float = 30.0
    header_timeout: float = 10.0
    write_timeout: float = 30.0
    write_rate: int = 32_768
    connections: int = 2048
    drain: float = 30.0
    grace: float = 0.5
