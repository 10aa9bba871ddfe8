"""The one gRPC message that the bench sends: what is in stock? By hand: five bytes of frame, and a field of protobuf."""

import struct

STOCK = "/shop.v1.Inventory/Stock"
HEADERS = ("content-type: application/grpc", "te: trailers")


def ask_for_stock(sku):
    """A `StockRequest`, framed as gRPC frames it."""
    name = sku.encode()
    message = b"\x0a" + bytes([len(name)]) + name
    return b"\x00" + struct.pack(">I", len(message)) + message
