"""What stands before a peer's gateway, which listens on loopback alone: passes on all that is asked, or only what is asked for single blocks.

usage: before_gateway.py HOST PORT GATEWAY_PORT all|blocks
"""
import asyncio, re, sys


async def head_of(reader):
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def copy(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def blocks(reader, writer, from_gateway, to_gateway):
    """Request after request; archives are refused, of the others each answer has a length."""
    while head := await head_of(reader):
        if b"format=car" in head.split(b"\r\n")[0]:
            writer.write(b"HTTP/1.1 406 Not Acceptable\r\ncontent-length: 0\r\n\r\n")
            continue
        to_gateway.write(head)
        answer = await head_of(from_gateway)
        length = re.search(rb"content-length: *(\d+)", answer, re.IGNORECASE)
        if not length:
            break
        writer.write(answer + await from_gateway.readexactly(int(length[1])))
        await writer.drain()
    to_gateway.close()
    writer.close()


async def serve(reader, writer, port, way):
    from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", port)
    if way == "blocks":
        await blocks(reader, writer, from_gateway, to_gateway)
    else:
        await asyncio.gather(copy(reader, to_gateway), copy(from_gateway, writer), return_exceptions=True)


async def main():
    host, port, gateway, way = sys.argv[1:]
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, int(gateway), way), host, int(port))
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
