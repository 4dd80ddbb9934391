"""``disttrain doctor``: what this machine can run, and what to do about what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

Finding = tuple[str, str, str]
"""What, its state, and what to do (empty when nothing is missing)."""


def doctor() -> None:
    """List torch, its backends, Horovod and its controllers, MPI, devices and ports, and what to do about what is missing."""
    from disttrain.cli.console import print_table

    print_table("disttrain doctor", ("what", "state", "what to do"), findings())


def findings() -> Iterator[Finding]:
    yield from _torch()
    yield from _launchers()
    yield from _horovod()
    for package, extra in (("sklearn", "quickstart"), ("tensorboard", "tensorboard"), ("PIL", "images")):
        present = importlib.util.find_spec(package) is not None
        yield (
            package,
            "installed" if present else "absent",
            "" if present else f"pip install 'disttrain[{extra}]'",
        )
    yield _shared_memory()


def _torch() -> Iterator[Finding]:
    import torch
    import torch.distributed as dist

    yield "python", sys.version.split()[0], ""
    yield "torch", torch.__version__, ""
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        yield "CUDA devices", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}", ""
    else:
        built = torch.version.cuda is not None
        hint = (
            "no usable GPU: check the driver and CUDA_VISIBLE_DEVICES" if built else "this torch is built for CPU only"
        )
        yield "CUDA devices", "none", hint
    yield from _formats()
    yield (
        "Gloo",
        "yes" if dist.is_gloo_available() else "no",
        "" if dist.is_gloo_available() else "use a torch built with Gloo",
    )
    yield (
        "NCCL",
        "yes" if dist.is_nccl_available() else "no",
        "" if dist.is_nccl_available() else "needed on GPUs only",
    )
    yield (
        "CPU cores",
        str(os.cpu_count()),
        "" if "OMP_NUM_THREADS" in os.environ else "set OMP_NUM_THREADS for several ranks",
    )


def _formats() -> Iterator[Finding]:
    """What the device computes in, and whether a model can be compiled for it."""
    import torch

    from disttrain.precision import missing

    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] or [torch.device("cpu")]
    for name in ("bf16", "tf32"):
        lacks = next(filter(None, (missing(name, device) for device in devices)), "")
        yield f"precision {name}", "no" if lacks else "yes", lacks
    if devices[0].type == "cuda":
        tool, hint = "triton", "torch.compile needs it: pip install triton"
        present = importlib.util.find_spec("triton") is not None
    else:
        tool, hint = "a C++ compiler", "torch.compile needs one: apt-get install g++"
        present = any(_tool(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)
    yield "torch.compile", "yes" if present else f"no: {tool} is absent", "" if present else hint


def _launchers() -> Iterator[Finding]:
    for name, hint in (
        ("torchrun", "it comes with torch: is the environment active?"),
        ("mpirun", "apt-get install openmpi-bin libopenmpi-dev, or load your cluster's MPI module"),
        ("srun", "needed on Slurm clusters only"),
    ):
        path = _tool(name)
        yield name, path or "absent", "" if path else hint
    try:
        yield "mpi4py", importlib.metadata.version("mpi4py"), ""
    except importlib.metadata.PackageNotFoundError:
        yield "mpi4py", "absent", "torch DDP under mpirun needs it: pip install 'disttrain[mpi]'"


def _horovod() -> Iterator[Finding]:
    if importlib.util.find_spec("horovod") is None:
        yield "Horovod", "absent", "launch/install-horovod.sh builds it against this torch"
        return
    try:
        import horovod
        import horovod.torch as hvd
    except Exception as error:  # a build against another torch fails in many ways, all of which are the finding
        yield (
            "Horovod",
            f"does not load: {error}",
            "built against another torch? run launch/install-horovod.sh again",
        )
        return
    yield "Horovod", horovod.__version__, ""
    for what, built, hint in (
        ("Gloo", hvd.gloo_built(), "build again with launch/install-horovod.sh"),
        ("MPI", hvd.mpi_built(), "install MPI, then build again"),
        ("NCCL", bool(hvd.nccl_built()), "needed on GPUs only"),
    ):
        yield f"Horovod with {what}", "yes" if built else "no", "" if built else hint
    path = _tool("horovodrun")
    yield "horovodrun", path or "absent", "" if path else "is the environment active?"


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return "/dev/shm", "absent", "data workers need shared memory: set data.workers=0"
    hint = "" if free >= 2**30 else "small: docker run --shm-size=8g, or data.workers=0"
    return "/dev/shm", f"{free / 2**30:.1f} GiB free", hint


def _tool(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
