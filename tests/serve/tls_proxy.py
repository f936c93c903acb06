"""Ends TLS in front of a server that speaks none: python tls_proxy.py PORT BEHIND CERT [CA].

With CA, clients must show a certificate that it has signed. A program of its own, so that what it
leaves open ends with it.
"""

import asyncio
import ssl
import sys
from contextlib import suppress
from pathlib import Path


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


async def main(port: int, behind: int, cert: Path, *ca: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, cert.with_suffix(".key"))
    if ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(*ca)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(pump(reader, forth), pump(back, writer))

    async with await asyncio.start_server(talk, "127.0.0.1", port, ssl=context) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]))
