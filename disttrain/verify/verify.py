"""Proof of the promise on the user's own recipe: the same updates at several world sizes, accumulations and engines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from disttrain.checkpoint import load_latest
from disttrain.config import Recipe, dump_recipe
from disttrain.errors import InputError
from disttrain.methods.model import facts_of
from disttrain.rundir.rundir import METRICS, with_parts
from disttrain.tasks.make import make_task
from disttrain.verify.spawn import run_ranks

BOUNDS = {"fp64": 1e-10, "fp32": 1e-4}
"""Largest relative difference of any weight that counts as rounding."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to execute the recipe."""

    ranks: int
    accumulation: int
    engine: str

    def __str__(self) -> str:
        return f"{self.engine}, {self.ranks} rank{'s' * (self.ranks > 1)}, accumulation {self.accumulation}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant against one process without accumulation.

    Attributes:
        difference: largest over all tensors of ``max|a - b| / max|b|``; see :func:`max_difference`.
        tensor: where that is.
        same_order: whether the ordered sample ids are identical.
    """

    variant: Variant
    difference: float
    tensor: str
    same_order: bool


def variants(worlds: Sequence[int], accumulations: Sequence[int], engines: Sequence[str]) -> list[Variant]:
    """Every combination; one rank needs no engine but ``local``."""
    found = []
    for ranks in worlds:
        for engine in ["local"] if ranks == 1 else engines:
            found += [Variant(ranks, accumulation, engine) for accumulation in accumulations]
    return [v for v in found if v != REFERENCE]


REFERENCE = Variant(1, 1, "local")


def possible(recipe: Recipe, todo: Sequence[Variant]) -> list[Variant]:
    """Those that the recipe's plan does not refuse: a loss over the global batch is never accumulated, and a slice, of the noise
    scale or of the optimizer, goes through the model at once."""
    facts = facts_of(recipe, make_task(recipe))
    least = max(getattr(section, "slice", None) or 1 for section in (recipe.noise_scale, recipe.optimizer))
    fine = [v for v in todo if v.accumulation == 1 or not facts.over_global_batch]
    if (total := recipe.batch.global_) is None:
        return fine
    return [variant for variant in fine if at_once(total, variant, facts.ghost_size) >= least]


def at_once(total: int, variant: Variant, ghost: int) -> int:
    """Samples of a micro-batch where a global batch of ``total`` is cut as the variant says."""
    return -(-total // (ghost * variant.ranks * variant.accumulation)) * ghost


def verify(
    recipe: Recipe,
    todo: Sequence[Variant],
    *,
    precision: str,
    updates: int,
    work_dir: Path,
    device: str = "cpu",
) -> Iterator[Comparison]:
    """Run the reference, then each variant, and compare.

    Args:
        precision: ``fp64`` or ``fp32``: replaces the recipe's.
        updates: how many updates to make; choose more than an epoch to include a short last batch.
        work_dir: an empty directory for the runs.

    Raises:
        InputError: a variant cannot be run with this recipe.
        RankError: a run failed.
    """
    recipe = _comparable(recipe, max(v.ranks for v in todo))
    reference = _run(recipe, REFERENCE, precision, updates, work_dir, device)
    for variant in todo:
        weights, ids = _run(recipe, variant, precision, updates, work_dir, device)
        difference, tensor = max_difference(weights, reference[0])
        yield Comparison(variant, difference, tensor, ids == reference[1])


def length(recipe: Recipe, updates: int) -> dict[str, int | None]:
    """So many updates; in samples of the first batch where the batch itself depends on the length of the run, or on the run."""
    growth = recipe.batch.growth
    planned = growth is None or growth.kind not in ("instead_of_decay", "late")
    if planned and recipe.batch.adaptive is None:
        return {"samples": None, "updates": updates}
    assert recipe.batch.global_ is not None
    return {"samples": updates * recipe.batch.global_, "updates": None}


def max_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> tuple[float, str]:
    """``max over tensors of max|a - b| / max|b|``, and the tensor's name; infinite where either is not finite.

    Nothing is compared with less than a hundredth of the model's largest value: a tensor that begins at 0 and whose gradient is 0
    but for rounding (the key bias of attention) holds rounding only, which is another one on each cluster.
    """
    floats = {name: t.double() for name, t in b.items() if t.is_floating_point() and t.numel()}
    largest = max((float(t.abs().max()) for t in floats.values()), default=0.0)
    worst, where = 0.0, ""
    for name, y in floats.items():
        x = a[name].double()
        gap = float((x - y).abs().max())
        relative = gap / max(float(y.abs().max()), largest / 100, 1e-300) if gap else 0.0
        if relative != relative or not bool(x.isfinite().all()):
            relative = float("inf")
        if relative > worst:
            worst, where = relative, name
    return worst, where


def _comparable(recipe: Recipe, ranks: int) -> Recipe:
    """A recipe that means the same at every world size: a fixed global batch and a fixed number of parts."""
    if recipe.batch.per_rank is not None:
        total = recipe.batch.per_rank * recipe.batch.accumulation * ranks
        batch = recipe.batch.model_copy(update={"global_": total, "per_rank": None, "accumulation": 1})
        recipe = recipe.model_copy(update={"batch": batch})
    if recipe.data.order == "partition" and recipe.data.parts is None:
        recipe = with_parts(recipe, ranks)
    return recipe


def _run(
    recipe: Recipe, variant: Variant, precision: str, updates: int, work_dir: Path, device: str
) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
    assert recipe.batch.global_ is not None
    largest = -(-recipe.batch.global_ // variant.ranks)
    if variant.accumulation > largest:
        raise InputError(
            f"accumulation {variant.accumulation} needs at least as many samples a rank, but there are {largest}"
        )
    name = f"{variant.engine}-{variant.ranks}x{variant.accumulation}-{precision}"
    ghost = facts_of(recipe, make_task(recipe)).ghost_size
    most = at_once(recipe.batch.global_, variant, ghost)
    batch = recipe.batch.model_copy(update={"per_rank_max": most})
    run = recipe.model_copy(
        update={
            "name": name,
            "batch": batch,
            "epochs": None,
            **length(recipe, updates),
            "precision": precision,
            "loss_scaling": None,
            "evaluate": None,
            "early_stopping": None,
            "callbacks": [],
            "log": recipe.log.model_copy(update={"sample_ids": True, "sinks": []}),
        }
    )
    path = work_dir / f"{name}.yaml"
    path.write_text(dump_recipe(run), encoding="utf-8")
    run_dir = work_dir / name
    engine = variant.engine.removesuffix("-mpi")
    arguments = ["train", str(path), "--run-dir", str(run_dir), "--engine", engine, "--device", device]
    run_ranks(arguments, variant.ranks, variant.engine, log_dir=work_dir / f"{name}-output")
    lines = [json.loads(line) for line in (run_dir / METRICS).read_text().splitlines()]
    ids = [line["ids"] for line in lines if line.get("event") == "samples"]
    return dict(load_latest(run_dir).checkpoint.model), ids
