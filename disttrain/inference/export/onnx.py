"""ONNX: torch's exporter, tried out with onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from disttrain.checkpoint.files import write_file
from disttrain.errors import InputError
from disttrain.inference.export.calls import Call, dynamic_dimensions, named_leaves
from disttrain.inference.export.formats import Loaded, as_text, traced

MAX_BYTES = 2_000_000_000
"""Of weights: a protobuf message, which the file is, holds 2 GiB."""


class Onnx:
    """``.onnx``: inputs are the tensors that ``forward`` is called with, by its parameters' names; outputs are those that it
    returns. Numbers and other arguments are constants."""

    def write(self, model: nn.Module, calls: list[Call], notes: Mapping[str, Any], path: Path) -> None:
        _packages()
        size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        if size > MAX_BYTES:
            raise InputError(f"an .onnx file holds {MAX_BYTES:,} bytes, and the model has {size:,}: use .pt2")
        flat = _Flat(model, calls[0])
        # Quantised weights would be folded back into float32 ones.
        optimize = not any(t.dtype == torch.int8 for t in model.state_dict().values())
        dynamic = dynamic_dimensions(calls)
        program = traced(
            lambda: torch.onnx.export(
                flat,
                flat.inputs(calls[0]),
                dynamo=True,
                dynamic_shapes=(tuple(dynamic[place] for place in flat.places),),
                input_names=flat.names,
                output_names=flat.output_names,
                optimize=optimize,
                verbose=False,
            )
        )
        proto = program.model_proto
        for node in proto.graph.node:  # where the exporter keeps stack traces with this machine's paths
            node.ClearField("metadata_props")
        for name, value in as_text(notes).items():
            entry = proto.metadata_props.add()
            entry.key, entry.value = f"disttrain.{name}", value
        write_file(path, [proto.SerializeToString()])

    def read(self, model: nn.Module, path: Path) -> nn.Module:
        _, onnxruntime = _packages()
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            raise InputError(f"onnxruntime cannot run this model on a CPU: {str(error)[:300]}") from error
        return Loaded(_Session(session, model))


class _Flat(nn.Module):
    """A model as a function of the tensors in a call; gives a tuple of the tensors in its result."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model = model
        values, self._spec = pytree.tree_flatten((call.args, call.kwargs))
        self._constants = [None if isinstance(value, Tensor) else value for value in values]
        self.places = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        self.names = [_identifier(call.names[i]) for i in self.places]
        result = [(name, leaf) for name, leaf in named_leaves(call.of(model)) if isinstance(leaf, Tensor)]
        self.output_names = [
            _identifier(f"output_{name}" if name.isdigit() else name or "output") for name, _ in result
        ]
        self.output_names = [f"{name}_out" if name in self.names else name for name in self.output_names]
        self.eval()

    def inputs(self, call: Call) -> tuple[Tensor, ...]:
        leaves = call.leaves()
        return tuple(leaves[i] for i in self.places)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        values = list(self._constants)
        for place, tensor in zip(self.places, tensors, strict=True):
            values[place] = tensor
        args, kwargs = pytree.tree_unflatten(values, self._spec)
        return tuple(leaf for leaf in pytree.tree_leaves(self.model(*args, **kwargs)) if isinstance(leaf, Tensor))


class _Session:
    """An onnxruntime session that is called as the model is."""

    def __init__(self, session: Any, model: nn.Module) -> None:
        self._session, self._model = session, model
        self._form: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = Call.seen(self._model, 0, args, kwargs)
        if self._form is None:  # of the result: onnxruntime gives a list
            self._form = pytree.tree_flatten(call.of(self._model))
        leaves = zip(call.names, call.leaves(), strict=True)
        feed = {_identifier(name): leaf.numpy() for name, leaf in leaves if isinstance(leaf, Tensor)}
        wanted = {entry.name for entry in self._session.get_inputs()}  # an argument that has no effect is none of them
        found = iter(self._session.run(None, {name: value for name, value in feed.items() if name in wanted}))
        results, form = self._form
        values = [torch.from_numpy(next(found)) if isinstance(leaf, Tensor) else leaf for leaf in results]
        return pytree.tree_unflatten(values, form)


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _packages() -> tuple[Any, Any]:
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise InputError(
            f"an .onnx file needs onnx, onnxscript and onnxruntime ({error}): pip install 'disttrain[onnx]'"
        ) from error
    return onnxscript, onnxruntime
