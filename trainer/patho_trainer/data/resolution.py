"""How many um a pixel is, as files say it: the vendor's own field, then the TIFF's resolution. Never guessed: 0 is "it does not say"."""

import re
from xml.etree import ElementTree

import tifffile

MPP_RANGE = (0.02, 20.0)  # a microscope's; 72 dpi of a photograph would be 353
SQUARE = 0.05  # relative; pixels further from square have no single resolution
UM_PER_TIFF_UNIT = {2: 25400.0, 3: 10000.0}  # ResolutionUnit: inch, centimetre
UM_PER_OME_UNIT = {"\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}  # the micro sign, and the Greek letter
APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")


def vendor_mpp(description: str) -> float:
    """um/px out of an Aperio description (`|MPP = 0.2527|`), OME-XML (`PhysicalSizeX`) or Philips XML; 0 where there is none."""
    found = APERIO_MPP.search(description)
    if found:
        return plausible(float(found[1]))
    if "<OME" in description:
        return _ome_mpp(description)
    spacings = philips_spacings(description) if "DPUfsImport" in description else []
    return square(1e3 * spacings[0][0], 1e3 * spacings[0][1]) if spacings else 0.0


def _ome_mpp(description: str) -> float:
    pixels = ElementTree.fromstring(description.encode()).find(".//{*}Pixels")
    if pixels is None:
        return 0.0
    units = (UM_PER_OME_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "um"), 0.0) for axis in "XY")
    return square(*(float(pixels.get(f"PhysicalSize{axis}", 0)) * unit for axis, unit in zip("XY", units, strict=True)))


def philips_spacings(description: str) -> list[tuple[float, float]]:
    """(x, y) mm a pixel of each level, fine to coarse, out of the XML of a Philips TIFF (DPUfsImport)."""
    image = ElementTree.fromstring(description.encode()).find("./Attribute[@Name='PIM_DP_SCANNED_IMAGES']/Array")
    slides = [found for found in image if _is_slide(found)] if image is not None else []
    texts = slides[0].iterfind(".//*[@ObjectType='PixelDataRepresentation']/Attribute[@Name='DICOM_PIXEL_SPACING']") if slides else ()
    rows = [(each.text or "").replace('"', " ").split() for each in texts]
    return [(float(across), float(down)) for down, across in rows]


def _is_slide(image: ElementTree.Element) -> bool:
    """Beside the slide there are its label and an overview."""
    return any(each.text == "WSI" for each in image.iterfind("./Attribute[@Name='PIM_DP_IMAGE_TYPE']"))


def tiff_mpp(page: tifffile.TiffPage) -> float:
    """um/px out of the TIFF's own resolution; 0 where it is missing or no microscope's."""
    tags = [page.tags.get(name) for name in ("XResolution", "YResolution")]
    unit = page.tags.get("ResolutionUnit")
    um = UM_PER_TIFF_UNIT.get(int(unit.value) if unit else 2)
    if um is None or any(tag is None or not tag.value[0] for tag in tags):
        return 0.0
    return square(*(um * tag.value[1] / tag.value[0] for tag in tags))


def square(x: float, y: float) -> float:
    """The mean of both directions' um/px; 0 where the pixels are not square, or not a microscope's."""
    return plausible((x + y) / 2) if min(x, y) >= max(x, y) * (1 - SQUARE) else 0.0


def plausible(mpp: float) -> float:
    """`mpp`, or 0 where no microscope has such a resolution."""
    return mpp if MPP_RANGE[0] <= mpp <= MPP_RANGE[1] else 0.0
