"""Malformed and old TLS by tlslite-ng and by hand: `tls_hello.py CASE HOST:PORT [SVID]`. Prints how the other side took it."""

import json
import os
import socket
import struct
import sys

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.errors import TLSError

PATIENCE = 8.0


def connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), timeout=PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


def passport(svid: str):
    text = open(svid).read()
    chain = X509CertChain()
    chain.parsePemList(text)
    return chain, parsePEMKey(text[text.index("-----BEGIN PRIVATE KEY"):], private=True)


def settings(lowest=(3, 4), highest=(3, 4), **more) -> HandshakeSettings:
    wanted = HandshakeSettings()
    wanted.minVersion, wanted.maxVersion = lowest, highest
    # tlslite-ng would send its certificate compressed also to who did not ask for that.
    wanted.certificate_compression_send = wanted.certificate_compression_receive = []
    for name, value in more.items():
        setattr(wanted, name, value)
    return wanted


def shake(address, wanted, svid=None, alpn=(b"douane/1",), plain=None) -> dict:
    """A handshake; in TLS 1.3 only the first read tells whether the certificate was accepted."""
    connection = TLSConnection(plain or connect(address))
    chain, key = passport(svid) if svid else (None, None)
    try:
        connection.handshakeClientCert(chain, key, settings=wanted, alpn=list(alpn) or None)
        connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        told = connection.read(max=100, min=1)
        return {"accepted": bool(told), "version": connection.getVersionName(), "resumable": connection.session.resumable}
    except (TLSError, OSError, AssertionError, ValueError) as error:
        return {"accepted": False, "error": f"{type(error).__name__}: {error}"}


class Dribble:
    """A socket that cuts what is sent into records of one byte each."""

    def __init__(self, plain):
        self.plain, self.first = plain, True

    def __getattr__(self, name):
        return getattr(self.plain, name)

    def send(self, data):
        self.sendall(data)
        return len(data)

    def sendall(self, data):
        if self.first and data[0] == 0x16:
            self.first = False
            length = struct.unpack(">H", data[3:5])[0]
            for byte in data[5:5 + length]:
                self.plain.sendall(b"\x16\x03\x01\0\1" + bytes([byte]))
            data = data[5 + length:]
        self.plain.sendall(data)


def honest(address, svid):
    return shake(address, settings(), svid)


def no_certificate(address, _):
    return shake(address, settings())


def tls12(address, svid):
    return shake(address, settings((3, 3), (3, 3)), svid)


def tls11(address, svid):
    return shake(address, settings((3, 2), (3, 2)), svid)


def tls10(address, svid):
    return shake(address, settings((3, 1), (3, 1)), svid)


def one_byte_records(address, svid):
    return shake(address, settings(), svid, plain=Dribble(connect(address)))


def weak_group(address, svid):
    return shake(address, settings(eccCurves=[], keyShares=["ffdhe2048"], dhGroups=["ffdhe2048"]), svid)


def no_name(address, svid):
    return shake(address, settings(), svid, alpn=())


def raw(address, data: bytes) -> dict:
    plain = connect(address)
    told = b""
    try:
        plain.sendall(data)
        while len(told) < 4096:
            piece = plain.recv(4096)
            if not piece:
                break
            told += piece
    except OSError as error:
        return {"accepted": False, "error": str(error), "told": told.hex()}
    return {"accepted": False, "error": "closed", "told": told.hex()}


def hello(version=b"\x03\x03", suites=b"\x13\x01\x13\x02", compression=b"\0", extensions=b"") -> bytes:
    body = version + os.urandom(32) + b"\0" + struct.pack(">H", len(suites)) + suites
    body += bytes([len(compression)]) + compression + struct.pack(">H", len(extensions)) + extensions
    shaken = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack(">H", len(shaken)) + shaken


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">HH", kind, len(data)) + data


def ssl2(address, _):
    return raw(address, b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01\x00\x80" * 7 + bytes(16))


def ssl3(address, _):
    return raw(address, hello(version=b"\x03\x00"))


def no_extensions(address, _):
    return raw(address, hello())


def anonymous(address, _):
    return raw(address, hello(suites=b"\x00\x34\x00\x1b\xc0\x18"))


def compression(address, _):
    return raw(address, hello(compression=b"\x01\0", extensions=extension(43, b"\x02\x03\x04")))


def empty_record(address, _):
    return raw(address, b"\x16\x03\x01\0\0" * 1000)


def huge_record(address, _):
    return raw(address, b"\x16\x03\x01\xff\xff" + bytes(65535))


def huge_handshake(address, _):
    return raw(address, b"\x16\x03\x01\x40\0" + b"\x01\xff\xff\xff" + bytes(0x3FFC) + (b"\x16\x03\x01\x40\0" + bytes(0x4000)) * 64)


def alert_first(address, _):
    return raw(address, b"\x15\x03\x01\0\2\x02\x28")


def data_first(address, _):
    return raw(address, b"\x17\x03\x03\0\5hello")


def ccs_flood(address, _):
    return raw(address, b"\x14\x03\x03\0\1\x01" * 10_000)


def early_data(address, _):
    """Claims a ticket and sends data at once."""
    identity = struct.pack(">H", 32) + os.urandom(32) + bytes(4)
    psk = struct.pack(">H", len(identity)) + identity + struct.pack(">H", 33) + b"\x20" + os.urandom(32)
    share = struct.pack(">HH", 29, 32) + os.urandom(32)
    wanted = extension(43, b"\x02\x03\x04") + extension(10, b"\0\2\0\x1d") + extension(13, b"\0\2\x04\x03")
    wanted += extension(51, struct.pack(">H", len(share)) + share) + extension(16, b"\0\x09\x08douane/1")
    wanted += extension(45, b"\x01\x01") + extension(42, b"") + extension(41, psk)
    return raw(address, hello(extensions=wanted) + b"\x17\x03\x03\0\x40" + os.urandom(64))


def garbage(address, _):
    return raw(address, os.urandom(4096))


def main():
    case, address, svid = sys.argv[1], sys.argv[2], (sys.argv[3:] or [None])[0]
    print(json.dumps(globals()[case](address, svid)))


main()
