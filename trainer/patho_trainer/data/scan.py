"""One slide's row for the index: open it, find the tissue, count where patches fit, or say why it cannot be used."""

import dataclasses

import openslide

from patho_api import pretrain
from patho_trainer.data import catalog, copies, manifest, masks, slide, storage, tissue


def named(row: catalog.Slide, entry: manifest.Entry) -> catalog.Slide:
    """A slide's row with what the source says about it now."""
    return dataclasses.replace(
        row, id=entry.id, url=entry.url, label=entry.label, patient=entry.patient, weight=entry.weight, flags=entry.flags
    )


def rejected(entry: manifest.Entry, reason: str, message: str) -> catalog.Slide:
    """The row of a slide that cannot be used."""
    info = entry.info or storage.ObjectInfo(entry.url, 0, "")
    row = catalog.Slide(entry.id, entry.url, info.size, info.etag, rejected=reason, message=message)
    return named(row, entry)


class Scanner:
    """Looks at slides. Thread-safe."""

    def __init__(self, bucket: storage.Bucket, foreground: pretrain.Foreground, patches: pretrain.Patches) -> None:
        """`patches` says for which patches positions are counted."""
        self._bucket = bucket
        self._copies = copies.Copies(bucket)
        self._foreground = foreground
        self._patches = patches

    def look(self, entry: manifest.Entry) -> tuple[catalog.Slide, bytes]:
        """The row of a slide and its record (empty where it cannot be read). Raises Transient and AccessDenied, nothing else."""
        assert entry.info is not None
        try:
            opened = slide.inspect(entry.info, self._bucket, self._copies, entry.mpp)
            mask = self._tissue(opened, entry)
        except slide.Rejected as error:
            return rejected(entry, error.reason, str(error)), b""
        except storage.NotFound as error:
            return rejected(entry, "Missing", str(error)), b""
        except slide.Undecodable as error:
            return rejected(entry, "Unreadable", f"damaged tile ({error}): upload it again"), b""
        except openslide.OpenSlideError as error:
            return rejected(entry, "Unreadable", f"OpenSlide cannot read it: {error}"), b""
        return self.judge(named(opened.facts, entry), mask), opened.record.with_mask(mask)

    def _tissue(self, opened: slide.Opened, entry: manifest.Entry) -> tissue.Mask:
        shape = tissue.mask_shape(*opened.dimensions, opened.mpp)
        picture = opened.thumbnail(*shape)
        if not tissue.is_brightfield(picture):
            raise slide.Rejected("NotBrightfield", "the picture is dark, as in fluorescence: only brightfield slides are used")
        if self._foreground.method == "Masks":
            return self._users_mask(entry, shape)
        return tissue.mask(picture, self._foreground.method)

    def _users_mask(self, entry: manifest.Entry, shape: tuple[int, int]) -> tissue.Mask:
        url = masks.url_of(self._foreground.masks_url, entry)
        try:
            return masks.decode(self._bucket.read(url), url, *shape)
        except storage.NotFound as error:
            raise slide.Rejected("NoMask", f"there is no mask {url}: foreground.masksUrl says where masks lie") from error

    def judge(self, row: catalog.Slide, mask: tissue.Mask) -> catalog.Slide:
        """The row with the positions counted that wanted patches may take; rejected where there is none. Pure."""
        offers = catalog.fitting_offers(row.levels, self._patches)
        accepted = tuple(self._accepted(row, offer, mask) for offer in offers)
        reason, message = self._verdict(row, accepted)
        return dataclasses.replace(row, accepted=accepted, rejected=reason, message=message)

    def _accepted(self, row: catalog.Slide, offer: catalog.Offer, mask: tissue.Mask) -> catalog.Accepted:
        level, source_px = row.levels[offer.level], offer.source_px(self._patches.size_px)
        width, height = (
            source_px * of_mask / of_level for of_mask, of_level in zip(mask.shape[::-1], (level.width, level.height), strict=True)
        )
        count = tissue.positions(mask, width, height, self._foreground.min_coverage)
        return catalog.Accepted(offer.wanted_mpp, self._patches.size_px, count)

    def _verdict(self, row: catalog.Slide, accepted: tuple[catalog.Accepted, ...]) -> tuple[str, str]:
        if not accepted:
            wanted = ", ".join(f"{m.mpp:g}" for m in self._patches.magnifications)
            size = f"{row.width} x {row.height} px at {row.mpp:.4g} um/px"
            return "NoMagnification", f"the slide has {size}: no patch of {self._patches.size_px} px at {wanted} um/px without upsampling"
        if not any(a.positions for a in accepted):
            share = self._foreground.min_coverage
            return (
                "NoForeground",
                f"no patch lies on tissue by {share:.0%} ({self._foreground.method}): foreground.minCoverage may be lower",
            )
        return "", ""
