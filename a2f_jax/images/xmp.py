"""Selects the XMP properties that are still true of an upscaled image, and updates its pixel sizes (ISO 16684-1)."""

import re
from typing import Any
from xml.parsers import expat

# Properties are written as in expat's events: the namespace, a space, and the name. The entries below are their
# beginnings, most of them whole namespaces.

# Phones append gain maps, videos, and depth maps to a JPEG, or store them in XMP. Upscaled images do not contain them.
_APPENDED = (
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/camera/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/dd/1.0/",
    "http://ns.adobe.com/xmp/note/",  # names the extension of a packet that is too large for JPEG, which is not read
)

# Places in the image, relative to its size: not true if the rows have become the columns or were flipped.
_REGIONS = (
    "http://www.metadataworkinggroup.com/schemas/regions/",
    "http://ns.microsoft.com/photo/1.2/",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/ ImageRegion",
)

_TAG = re.compile(rb"""<[^>"']*(?:"[^"]*"[^>"']*|'[^']*'[^>"']*)*>""")
_ATTRIBUTE = re.compile(rb"""\s+([^\s=<>"'/]+)\s*=\s*("[^"]*"|'[^']*')""")


def _property(*names: str) -> re.Pattern[bytes]:
    # Matches a number in an attribute or an element; the first group precedes the number.
    return re.compile(rf"((?:{'|'.join(names)})(?:\s*=\s*[\"']|\s*>)\s*)(\d{{1,9}})(?!\d)".encode())


ORIENTATION = _property("tiff:Orientation")
"""Matches the orientation of an image in a packet, which is the second group."""

_REGION_SIZE = r"mwg-rs:AppliedToDimensions\s(?:[^<>]*\s)?stDim:"
_WIDTH = _property("tiff:ImageWidth", "exif:PixelXDimension", f"{_REGION_SIZE}w")
_HEIGHT = _property("tiff:ImageLength", "exif:PixelYDimension", f"{_REGION_SIZE}h")
# A panorama states where it lies on a sphere.
_X = _property(
    "GPano:FullPanoWidthPixels",
    "GPano:CroppedAreaImageWidthPixels",
    "GPano:CroppedAreaLeftPixels",
    "GPano:LargestValidInteriorRectLeft",
    "GPano:LargestValidInteriorRectWidth",
)
_Y = _property(
    "GPano:FullPanoHeightPixels",
    "GPano:CroppedAreaImageHeightPixels",
    "GPano:CroppedAreaTopPixels",
    "GPano:LargestValidInteriorRectTop",
    "GPano:LargestValidInteriorRectHeight",
)


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
    untrue = _APPENDED + _REGIONS if moved else _APPENDED
    if any(name.split()[0].encode() in packet for name in untrue):
        try:
            packet = _without(packet.rstrip(b"\0"), untrue)
        except (expat.ExpatError, LookupError, ValueError):  # the last two about unknown encodings
            return None
    return ORIENTATION.sub(rb"\g<1>1", packet)


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


def _without(packet: bytes, names: tuple[str, ...]) -> bytes:
    """Cuts elements and attributes out of an XML document, and leaves everything else as it is.

    Args:
      packet: the document.
      names: beginnings of the names of what is cut, and of the namespaces whose declarations are.

    Raises:
      ExpatError: the document is malformed, with or without them; or it declares entities, as no XMP packet does.
      LookupError: its encoding is unknown.
      ValueError: its encoding has several bytes per character, and is not Unicode.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    scopes: dict[str, list[str]] = {}  # the namespaces that each prefix has had so far, the current one last
    starts: list[int | None] = []  # of the elements that are open; None if one stays
    cuts: list[tuple[int, int]] = []

    def declare(prefix: str | None, uri: str) -> None:
        scopes.setdefault(prefix or "", []).append(uri)

    def undeclare(prefix: str | None) -> None:
        scopes[prefix or ""].pop()

    def is_cut(prefix: str, name: str, value: str) -> bool:
        if prefix == "xmlns":
            return value.startswith(names)
        return bool(prefix) and any(f"{uri} {name}".startswith(names) for uri in scopes.get(prefix, ())[-1:])

    def start(name: str, attributes: object) -> None:
        first = parser.CurrentByteIndex
        starts.append(first if name.startswith(names) else None)
        tag = _TAG.match(packet, first)
        if starts[-1] is None and tag:
            for match in _ATTRIBUTE.finditer(packet, first, tag.end()):
                attribute, value = (part.decode(errors="replace") for part in match.groups())
                prefix, _, local = attribute.rpartition(":")
                if is_cut(prefix, local, value[1:-1]):
                    cuts.append(match.span())

    def end(_: str) -> None:
        first = starts.pop()
        if first is not None:
            tag = _TAG.match(packet, first)
            empty = tag and tag[0].endswith(b"/>")
            cuts.append((first, tag.end() if tag and empty else packet.index(b">", parser.CurrentByteIndex) + 1))

    def refuse(*_: object) -> None:
        raise expat.ExpatError("entities are not allowed")

    parser.StartNamespaceDeclHandler = declare
    parser.EndNamespaceDeclHandler = undeclare
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(packet, True)
    parts, at = [], 0
    for first, last in sorted(cuts):
        if first >= at:  # not inside of another one
            parts.append(packet[at:first])
            at = last
    kept = b"".join(parts) + packet[at:]
    expat.ParserCreate(namespace_separator=" ").Parse(kept, True)
    return kept
