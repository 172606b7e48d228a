"""Checks which XMP properties survive, and that malformed packets never cost an image."""

import io

import numpy as np
import pytest
import tifffile

from a2f_jax.images.reading import read_picture
from a2f_jax.images.xmp import resized_xmp, valid_xmp

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_xmp_sizes_become_those_of_the_result_and_the_orientation_upright():
    packet = (
        b'<rdf:Description tiff:ImageWidth="32" tiff:Orientation = "6" exif:PixelYDimension="24" exif:Other="32">'
        b"<tiff:ImageLength>24</tiff:ImageLength><exif:PixelXDimension>32</exif:PixelXDimension></rdf:Description>"
    )
    assert resized_xmp(valid_xmp(packet), 48, 64, (1.5, 64 / 24)) == (
        b'<rdf:Description tiff:ImageWidth="48" tiff:Orientation = "1" exif:PixelYDimension="64" exif:Other="32">'
        b"<tiff:ImageLength>64</tiff:ImageLength><exif:PixelXDimension>48</exif:PixelXDimension></rdf:Description>"
    )


DESCRIPTION = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"%s>'
    b"<dc:rights xmlns:dc='http://purl.org/dc/elements/1.1/'>a &amp; \xc3\xbc</dc:rights>%s"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("attributes", "elements"),
    [
        (b" xmlns:hdrgm=\"http://ns.adobe.com/hdr-gain-map/1.0/\" hdrgm:Version = '1.0'", b""),
        (b"", b'<h:Version xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/">1.0</h:Version>'),
        (b' xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"', b'<h:Map h:Gain="a>b"/>'),
        (
            b' xmlns:C="http://ns.google.com/photos/1.0/container/" xmlns:G="http://ns.google.com/photos/1.0/camera/"'
            b' G:MotionPhoto="1" xmlns:Item="http://ns.google.com/photos/1.0/container/item/"',
            b'<C:Directory><rdf:Seq><rdf:li><C:Item Item:Mime="image/jpeg"/></rdf:li></rdf:Seq></C:Directory>',
        ),
        (b' xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="0123456789ABCDEF"', b""),
    ],
)
def test_xmp_keeps_all_but_what_describes_files_appended_to_the_original(attributes, elements):
    assert valid_xmp(DESCRIPTION % (attributes, elements)) == DESCRIPTION % (b"", b"")


def test_xmp_loses_regions_only_if_the_image_is_turned():
    region = b'<m:Regions xmlns:m="http://www.metadataworkinggroup.com/schemas/regions/"><rdf:Bag/></m:Regions>'
    packet = DESCRIPTION % (b"", region)
    assert valid_xmp(packet) == packet
    assert valid_xmp(packet, moved=True) == DESCRIPTION % (b"", b"")


def test_the_pixels_of_a_panorama_are_scaled():
    panorama = b' GPano:FullPanoWidthPixels="%d" GPano:FullPanoHeightPixels="%d" GPano:CroppedAreaTopPixels="%d"'
    assert resized_xmp(panorama % (220, 110, 7), 330, 440, (1.5, 4.0)) == panorama % (330, 440, 28)


@pytest.mark.parametrize(
    "packet",
    [
        b'<x xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/" h:Version="1.0">',
        b'<!DOCTYPE x [<!ENTITY e "e">]><x xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/" h:Version="1.0">&e;</x>',
        b'<x xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"><h:a><y xmlns:h="other" h:b="1"/></h:a><h:c',
    ],
)
def test_damaged_xmp_about_appended_files_is_dropped(packet):
    assert valid_xmp(packet) is None


def test_numbers_that_are_too_long_in_xmp_stay_as_they_are():
    packet = b'GPano:CroppedAreaLeftPixels="%s" tiff:ImageWidth="%s"' % (b"9" * 5000, b"9" * 400)
    assert resized_xmp(packet, 10, 10, (2.0, 2.0)) == packet


@pytest.mark.parametrize("encoding", [b"foo", b"shift_jis"])
def test_xmp_in_an_unknown_encoding_is_dropped(encoding):
    gain_map = b'<x xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"/>'
    assert valid_xmp(b'<?xml version="1.0" encoding="%s"?>%s' % (encoding, gain_map)) is None


def test_only_sizes_in_pixels_of_the_image_are_changed_in_xmp():
    page = b'<xmpTPg:MaxPageSize stDim:w="210.000" stDim:h="297.000" stDim:unit="Millimeters"/>'
    region = b'<mwg-rs:AppliedToDimensions stDim:w="%d" stDim:h="%d" stDim:unit="pixel"/>'
    assert resized_xmp(page + region % (30, 20), 60, 80, (2.0, 4.0)) == page + region % (60, 80)


def test_text_and_other_namespaces_of_the_same_prefix_stay_in_xmp():
    gain_map = b' xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/"'
    kept = b'<d a=\'say h:x="2" ok\'>use h:Version="1" here</d>' + b'<y xmlns:h="http://other/" h:keep="1"/>'
    assert valid_xmp(b"<x%s h:Version='1'>%s</x>" % (gain_map, kept)) == b"<x>%s</x>" % kept
    assert valid_xmp(b"<x%s>%s</x>\0" % (gain_map, kept)) == b"<x>%s</x>" % kept


def test_much_that_is_removed_from_xmp_takes_little_time():
    """1.5 MB; quadratic code takes seconds for each MB."""
    maps = b'<x xmlns:h="http://ns.adobe.com/hdr-gain-map/1.0/">%s</x>'
    assert valid_xmp(maps % (b"<h:a/>yyyyyyy" * 120_000)) == b"<x>%s</x>" % (b"yyyyyyy" * 120_000)


def test_image_regions_of_iptc_are_lost_only_if_the_image_is_turned():
    region = b"<e:ImageRegion><rdf:Bag/></e:ImageRegion>"
    packet = DESCRIPTION % (b' xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" e:City="Bonn"', region)
    assert valid_xmp(packet) == packet
    assert valid_xmp(packet, moved=True) == packet.replace(region, b"")


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 6])
def test_a_tiff_that_is_flipped_has_no_regions(orientation):
    xmp = b'<x xmlns:m="http://www.metadataworkinggroup.com/schemas/regions/"><m:Regions/></x>'
    file = io.BytesIO()
    tags = [(274, 3, 1, orientation, True), (700, 1, len(xmp), xmp, True)]
    tifffile.imwrite(file, PIXELS, photometric="rgb", extratags=tags, metadata=None)
    assert read_picture(file.getvalue()).xmp == (xmp if orientation == 1 else b"<x></x>")
