"""Published scores that a report is held against. Numbers only, each with its source; nothing here is measured by us."""

import dataclasses
from collections.abc import Mapping

PAPER = "arXiv 2404.15217, Table I: linear probes, protocol Paper, mean and standard deviation of 5 runs; PCam on its test split"
LEADERBOARD = "kaiko-eva's public leaderboard: protocol Eva; PCam on its test split; CoNSeP by Dice without background"


@dataclasses.dataclass(frozen=True)
class Score:
    """Mean and standard deviation over the runs, as printed; `std` None where the source has none."""

    mean: float
    std: float | None = None


def _row(bach: tuple[float, float], crc: tuple[float, float], mhist: tuple[float, float], pcam: tuple[float, float]) -> dict[str, Score]:
    return {task: Score(*pair) for task, pair in (("BACH", bach), ("CRC", crc), ("MHIST", mhist), ("PCam", pcam))}


TABLE_I: Mapping[str, Mapping[str, Score]] = {
    "ViT-S/16, random": _row((0.410, 0.009), (0.617, 0.008), (0.501, 0.004), (0.728, 0.003)),
    "ViT-S/16, DINO on ImageNet": _row((0.695, 0.004), (0.935, 0.003), (0.831, 0.002), (0.849, 0.007)),
    "ViT-B/8, DINO on ImageNet": _row((0.710, 0.007), (0.939, 0.001), (0.814, 0.003), (0.856, 0.004)),
    "ViT-L/14, DINOv2 on natural images": _row((0.707, 0.008), (0.916, 0.002), (0.832, 0.003), (0.888, 0.001)),
    "Lunit, ViT-S/16": _row((0.801, 0.005), (0.934, 0.001), (0.768, 0.004), (0.895, 0.006)),
    "Phikon, ViT-B/16": _row((0.725, 0.004), (0.935, 0.001), (0.777, 0.005), (0.915, 0.003)),
    "UNI, ViT-L/16": _row((0.814, 0.008), (0.950, 0.001), (0.837, 0.001), (0.938, 0.001)),
    "kaiko ViT-S/16": _row((0.797, 0.003), (0.943, 0.001), (0.828, 0.003), (0.893, 0.005)),
    "kaiko ViT-S/8": _row((0.834, 0.012), (0.946, 0.002), (0.832, 0.006), (0.887, 0.002)),
    "kaiko ViT-B/16": _row((0.810, 0.008), (0.960, 0.001), (0.826, 0.003), (0.898, 0.003)),
    "kaiko ViT-B/8": _row((0.865, 0.019), (0.956, 0.001), (0.809, 0.021), (0.921, 0.002)),
    "kaiko ViT-L/14": _row((0.870, 0.005), (0.930, 0.001), (0.809, 0.001), (0.898, 0.002)),
}


def _leader(bach: float, crc: float, mhist: float, pcam: float, consep: float) -> dict[str, Score]:
    return {t: Score(mean) for t, mean in (("BACH", bach), ("CRC", crc), ("MHIST", mhist), ("PCam", pcam), ("CoNSeP", consep))}


EVA_LEADERBOARD: Mapping[str, Mapping[str, Score]] = {
    "Virchow2": _leader(0.883, 0.967, 0.861, 0.933, 0.640),
    "UNI2-h": _leader(0.915, 0.965, 0.824, 0.944, 0.630),
    "H-optimus-0": _leader(0.759, 0.955, 0.843, 0.932, 0.644),
    "Midnight-12k": _leader(0.904, 0.966, 0.804, 0.929, 0.623),
    "kaiko ViT-B/8": _leader(0.866, 0.959, 0.829, 0.912, 0.646),
    "Prov-GigaPath": _leader(0.759, 0.951, 0.829, 0.935, 0.626),
    "UNI": _leader(0.785, 0.944, 0.843, 0.936, 0.628),
    "kaiko ViT-L/14": _leader(0.864, 0.938, 0.830, 0.914, 0.635),
    "kaiko ViT-B/16": _leader(0.835, 0.957, 0.837, 0.905, 0.606),
    "Phikon": _leader(0.729, 0.940, 0.803, 0.916, 0.627),
    "kaiko ViT-S/8": _leader(0.802, 0.952, 0.823, 0.894, 0.637),
    "kaiko ViT-S/16": _leader(0.812, 0.940, 0.831, 0.905, 0.603),
    "Lunit": _leader(0.783, 0.940, 0.781, 0.894, 0.602),
}
