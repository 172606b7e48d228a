"""Selects the XMP properties that are still true of an upscaled image, and updates its pixel sizes (ISO 16684-1)."""

import re
from collections.abc import Container
from typing import Any
from xml.parsers import expat

# Phones append gain maps, videos, and depth maps to a JPEG, or store them in XMP. Upscaled images do not contain them.
_APPENDED = frozenset({
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/camera/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/container/item/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.adobe.com/xmp/note/",  # names the extension of a packet that is too large for JPEG, which is not read
})  # fmt: skip

# Places in the image, relative to the size of the file: not true if the rows have become the columns or were flipped.
_REGIONS = frozenset({
    "http://www.metadataworkinggroup.com/schemas/regions/",
    "http://ns.microsoft.com/photo/1.2/",
})  # fmt: skip


_TAG = re.compile(rb"""<[^>"']*(?:"[^"]*"[^>"']*|'[^']*'[^>"']*)*>""")


def _property(*names: str) -> re.Pattern[bytes]:
    # Matches a number in an attribute or an element; the first group precedes the number.
    return re.compile(rf"((?:{'|'.join(names)})(?:\s*=\s*[\"']|\s*>)\s*)(\d+)".encode())


_ORIENTATION = _property("tiff:Orientation")
_WIDTH = _property("tiff:ImageWidth", "exif:PixelXDimension", "stDim:w")
_HEIGHT = _property("tiff:ImageLength", "exif:PixelYDimension", "stDim:h")
# A panorama states where it lies on a sphere.
_X = _property("GPano:FullPanoWidthPixels", "GPano:CroppedAreaImageWidthPixels", "GPano:CroppedAreaLeftPixels")
_Y = _property("GPano:FullPanoHeightPixels", "GPano:CroppedAreaImageHeightPixels", "GPano:CroppedAreaTopPixels")


def valid_xmp(packet: Any, *, moved: bool = False) -> bytes | None:
    """Selects the properties that are true of an upright, upscaled version of an image.

    Args:
      packet: XMP packet of the original, or None.
      moved: whether the orientation of the original is not upright.

    Returns:
      The packet without properties about files that are appended to the original, and without regions if the image
      was moved; its orientation is upright. None if there is no packet, or if what has to be removed is in a packet
      that is damaged.
    """
    if not isinstance(packet, bytes) or not packet:
        return None
    untrue = _APPENDED | _REGIONS if moved else _APPENDED
    if any(namespace.encode() in packet for namespace in untrue):
        try:
            packet = _without(packet, untrue)
        except expat.ExpatError:
            return None
    return _ORIENTATION.sub(rb"\g<1>1", packet)


def resized_xmp(packet: bytes, width: int, height: int, factors: tuple[float, float]) -> bytes:
    """Updates the pixel sizes in an XMP packet.

    Args:
      packet: the packet.
      width: width of the result in pixels.
      height: height of the result in pixels.
      factors: how many times as wide and as high as the original it is.

    Returns:
      The packet with the sizes of the result, where it states any.
    """
    packet = _WIDTH.sub(rb"\g<1>%d" % width, packet)
    packet = _HEIGHT.sub(rb"\g<1>%d" % height, packet)
    packet = _X.sub(lambda match: match[1] + b"%d" % round(int(match[2]) * factors[0]), packet)
    return _Y.sub(lambda match: match[1] + b"%d" % round(int(match[2]) * factors[1]), packet)


def _without(packet: bytes, namespaces: Container[str]) -> bytes:
    """Cuts elements and attributes out of an XML document, and leaves everything else as it is.

    Raises:
      ExpatError: the document is malformed, with or without them; or it declares entities, as no XMP packet does.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    prefixes: set[str] = set()
    starts: list[int | None] = []  # of the elements that are open; None if one stays
    cuts: list[tuple[int, int]] = []

    def declare(prefix: str | None, uri: str) -> None:
        if prefix and uri in namespaces:
            prefixes.add(prefix)

    def start(name: str, _: object) -> None:
        starts.append(parser.CurrentByteIndex if name.partition(" ")[0] in namespaces else None)

    def end(_: str) -> None:
        first = starts.pop()
        if first is not None:
            tag = _TAG.match(packet, first)
            empty = tag and tag[0].endswith(b"/>")
            cuts.append((first, tag.end() if tag and empty else packet.index(b">", parser.CurrentByteIndex) + 1))

    def refuse(*_: object) -> None:
        raise expat.ExpatError("entities are not allowed")

    parser.StartNamespaceDeclHandler = declare
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(packet, True)
    kept, at = b"", 0
    for first, last in sorted(cuts):
        if first >= at:  # not inside of another one
            kept += packet[at:first]
            at = last
    kept += packet[at:]
    if prefixes:
        names = "|".join(map(re.escape, sorted(prefixes)))
        kept = re.sub(rf"""\s(?:xmlns:(?:{names})|(?:{names}):[\w.-]+)\s*=\s*("[^"]*"|'[^']*')""".encode(), b"", kept)
    expat.ParserCreate(namespace_separator=" ").Parse(kept, True)
    return kept
