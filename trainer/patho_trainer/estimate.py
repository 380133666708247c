"""What a run will ask of a bucket and of the accelerators: arithmetic with its assumptions in the output."""

from patho_api import pretrain, resource
from patho_trainer import terminal

TILE_PX = 256  # edge of a stored tile
TILE_BYTES = 14_600  # JPEG quality 75, H&E (measured on a colon slide)


def tiles_per_patch(size_px: int, coordinates: str) -> tuple[float, float]:
    """Expected tiles that a patch touches, and rows of tiles (each row is one request), for patches read 1:1 from a level."""
    across = 1.0 if coordinates == "Grid" else 1 + (size_px - 1) / TILE_PX
    return across * across, across


def amount(count: float) -> str:
    """Bytes as people say them: 2.3 MB, 1.9 TB."""
    unit, name = next(((u, n) for u, n in ((1e12, "TB"), (1e9, "GB")) if count >= u), (1e6, "MB"))
    return f"{count / unit:,.1f} {name}"


def lines(res: resource.Resource, images_per_second: float | None) -> list[str]:
    """Sentences for `patho validate`; empty for an evaluation."""
    if not isinstance(res.spec, pretrain.PretrainSpec):
        return []
    spec = res.spec
    patches = spec.training.steps * spec.training.batch_size
    tiles, rows = tiles_per_patch(spec.patches.size_px, spec.patches.coordinates)
    found = [
        f"{patches:,} patches in {spec.training.steps:,} steps of {spec.training.batch_size}",
        f"about {patches * rows:,.0f} requests and {amount(patches * tiles * TILE_BYTES)} read "
        f"(assuming {TILE_PX} px tiles of {TILE_BYTES / 1000:.1f} kB and patches at native levels)",
    ]
    if images_per_second is None:
        return [*found, "add --images-per-second for the time it takes"]
    seconds = patches / images_per_second
    accelerators = spec.compute.nodes * spec.compute.processes_per_node
    return [*found, f"{terminal.duration(seconds)} on {accelerators} accelerators: {seconds * accelerators / 3600:,.0f} accelerator-hours"]
