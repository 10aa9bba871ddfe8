"""A WebSocket server that tells everything back. Prints its port."""

import asyncio
import logging

import websockets

logging.disable(logging.CRITICAL)


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
