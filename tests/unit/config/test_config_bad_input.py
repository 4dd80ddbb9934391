"""Mistakes in keys, names, combinations and the YAML itself: where it is, what was given, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_cases import COUNT, GOOD, RATE, changed, mistakes

from disttrain.config import RecipeError, load_recipe

TASKS = "digits | fashion_mnist | mnist | image_folder | text | synthetic | noisy_quadratic | table | pkg.mod:Object"
MODELS = (
    "mlp | convnet | resnet18 | resnet44 | resnet50 | transformer | timm:NAME | torchvision:NAME | pkg.mod:callable"
)
DECAYS = (
    "constant | linear | cosine | polynomial | exponential | wsd | step | multistep | "
    "cosine_restarts | triangular | triangular2 | one_cycle"
)


def lr(text: str) -> str:
    return changed("lr: 0.1", f"lr: {text}")


def size(text: str) -> str:
    return changed("global: 64", f"global: {text}")


ONE_MISTAKE = {
    # Unknown keys.
    "a misspelt key": (
        lr("0.1, momentun: 0.9"),
        "5: optimizer.momentun: unknown key; did you mean optimizer.momentum?",
    ),
    "another toolkit's name, misspelt, instead of a required key": (
        changed("lr: 0.1", "learning_rte: 0.1"),
        "5: optimizer.learning_rte: unknown key; did you mean optimizer.lr?",
    ),
    "the length, misspelt": (changed("epochs: 2", "epoch: 2"), "4: epoch: unknown key; did you mean epochs?"),
    "a right key in the wrong section": (GOOD + "lr: 0.1\n", "6: lr: unknown key; did you mean optimizer.lr?"),
    "a name where there is a kind": (
        GOOD + "schedule: {name: cosine}\n",
        "6: schedule.name: unknown key; expected one of warmup, decay, regime_adaptation",
    ),
    "the same the other way round": (lr("0.1, seed: 3"), "5: optimizer.seed: unknown key; did you mean seed?"),
    "a key of another section that is like one beside it": (
        changed("sgd, lr: 0.1", "adamw, lr: 0.1, epochs: 3"),
        "5: optimizer.epochs: unknown key; did you mean epochs?",
    ),
    "a key of another optimizer": (
        lr("0.1, betas: [0.9, 0.99]"),
        "5: optimizer.betas: unknown key for sgd; it belongs to adamw, lamb, novograd, muon or batch_invariant_adam",
    ),
    "a key of other decays": (
        GOOD + "schedule:\n  decay:\n    kind: cosine\n    gamma: 0.1\n",
        "9: schedule.decay.gamma: unknown key for cosine; it belongs to step or multistep",
    ),
    "a dotted key": (
        GOOD + "schedule.decay.kind: cosine\n",
        "6: schedule.decay.kind: unknown key; write nested sections: schedule: {decay: {kind: ...}}",
    ),
    "a key like no other": (
        GOOD + "gradient: {zzz: 1}\n",
        "6: gradient.zzz: unknown key; expected one of clip_norm, clip_value, clip_layer_norm, clip_adaptive, norm_type, noise",
    ),
    "a number whose square is none": (
        changed("global: 64", "global: 64, adaptive: {policy: norm_test, max: 64, theta: 1.0e+200}"),
        "3: batch.adaptive.theta: got 1e+200; expected a number greater than 0 and at most 1e+06",
    ),
    # Names.
    "a misspelt task": (
        changed("digits", "fashion_mnst"),
        f'2: task.name: got "fashion_mnst"; expected {TASKS}; did you mean fashion_mnist?',
    ),
    "an unknown optimizer": (
        changed("sgd", "rprop"),
        '5: optimizer.name: got "rprop"; expected sgd | adamw | rmsprop | lars | lamb | novograd | muon | '
        "batch_invariant_adam | pkg.mod:Object; did you mean rmsprop?",
    ),
    "an unknown model": (GOOD + "model: {name: vgg}\n", f'6: model.name: got "vgg"; expected {MODELS}'),
    "our own word for the user's": (changed("digits", "custom"), f'2: task.name: got "custom"; expected {TASKS}'),
    "half an object": (changed("digits", "'my_tasks:'"), '2: task.name: got "my_tasks:"; expected pkg.mod:Object'),
    "a model library without a model": (
        GOOD + "model: {name: 'timm:'}\n",
        '6: model.name: got "timm:"; expected timm:NAME | torchvision:NAME | pkg.mod:callable',
    ),
    "a number for a name": (changed("digits", "3"), f"2: task.name: got 3; expected {TASKS}"),
    "no name": (changed("{name: digits}", "{root: x}"), f"2: task.name: is required; expected {TASKS}"),
    "a name for a section": (
        changed("{name: digits}", "digits"),
        f'2: task: got "digits"; expected a section with name: {TASKS}; write {{name: digits}}',
    ),
    "a misspelt kind": (
        GOOD + "schedule: {decay: {kind: cosin}}\n",
        f'6: schedule.decay.kind: got "cosin"; expected {DECAYS}; did you mean cosine?',
    ),
    "a number for the run's name": (
        changed("name: small", "name: 10"),
        "1: name: got 10; expected a name of at most 100 letters, digits, dots, dashes and underscores, the first a letter "
        'or digit, or null; write "10" in quotes',
    ),
    "a directory for the run's name": (
        changed("name: small", "name: ../x"),
        '1: name: got "../x"; expected a name of at most 100 letters, digits, dots, dashes and underscores, the first a '
        "letter or digit, or null",
    ),
    # What is missing, what excludes each other, and what cannot be.
    "no length": (changed("epochs: 2\n", ""), "1: expected exactly one of epochs, samples, updates; got none"),
    "two lengths": (
        GOOD + "samples: 10\n",
        "6: samples: expected exactly one of epochs, samples, updates; got epochs and samples",
    ),
    "no task": (changed("task: {name: digits}\n", ""), f"1: task: is required; expected a section with name: {TASKS}"),
    "no batch": (changed("batch: {global: 64}\n", ""), "1: batch: is required; expected a section (key: value)"),
    "an empty batch section": (size("null"), "3: batch: expected exactly one of global, per_rank; got none"),
    "two batches": (
        size("64, per_rank: 3"),
        "3: batch.per_rank: expected exactly one of global, per_rank; got global and per_rank",
    ),
    "a largest micro-batch beside its size": (
        changed("global: 64", "per_rank: 64, per_rank_max: 3"),
        "3: batch.per_rank_max: goes with global; with per_rank, the micro-batch is per_rank itself",
    ),
    "accumulation beside a global batch": (
        size("64, accumulation: 2"),
        "3: batch.accumulation: goes with per_rank; with global it is derived (see per_rank_max)",
    ),
    "warmup without a length": (
        GOOD + "schedule:\n  warmup:\n    kind: linear\n",
        "7: schedule.warmup: expected exactly one of epochs, samples, updates; got none",
    ),
    "a warmup longer than the run": (
        GOOD + "schedule:\n  warmup:\n    epochs: 5\n",
        "8: schedule.warmup.epochs: 5 is beyond the run of 2 epochs",
    ),
    "an exponential warmup from 0": (
        GOOD + "schedule: {warmup: {kind: exponential, epochs: 1}}\n",
        "6: schedule.warmup.start: an exponential warmup cannot start at 0; give start, for example 0.01",
    ),
    "milestones that fall": (
        GOOD + "schedule: {decay: {kind: multistep, milestones: {epochs: [1.5, 1]}}}\n",
        "6: schedule.decay.milestones.epochs: milestones must increase, and 1 follows 1.5",
    ),
    "milestones beyond the run": (
        GOOD + "schedule: {decay: {kind: multistep, milestones: {epochs: [1, 3]}}}\n",
        "6: schedule.decay.milestones.epochs: 3 is beyond the run of 2 epochs",
    ),
    "no milestones": (
        GOOD + "schedule: {decay: {kind: multistep, milestones: {}}}\n",
        "6: schedule.decay.milestones: expected exactly one of epochs, samples, updates; got none",
    ),
    "parts without a partition": (
        GOOD + "data: {parts: 3}\n",
        "6: data.parts: goes with order: partition, and order is global_shuffle",
    ),
    "early stopping without evaluations": (
        GOOD + "evaluate: null\nearly_stopping: {patience: 3}\n",
        "7: early_stopping: needs evaluations, and evaluate is null",
    ),
    "heads that do not divide the width": (
        GOOD + "model: {name: transformer, width: 130, heads: 4}\n",
        "6: model: width is 130, not divisible by heads 4",
    ),
    "nesterov without momentum": (
        lr("0.1, nesterov: true, momentum: 0"),
        "5: optimizer: nesterov: true needs momentum > 0 and dampening 0",
    ),
    # YAML itself.
    "a key twice": (GOOD + "epochs: 3\n", "6: epochs: is given twice, first in line 4"),
    "a key twice, deep down": (lr("0.1, lr: 0.2"), "5: optimizer.lr: is given twice, first in line 5"),
    "an anchor": (size("&size 64"), "3: batch.global: anchor &size: write the value out; recipes have no references"),
    "an alias": (
        changed("epochs: 2", "epochs: *size"),
        "4: epochs: alias *size: write the value out; recipes have no references",
    ),
    "a merge key": (
        lr("0.1, <<: {momentum: 0}"),
        "5: optimizer.<<: merge key: write the values out; recipes have no references",
    ),
    "a tag": (size("!!str 64"), '3: batch.global: tag "tag:yaml.org,2002:str": recipes hold plain values only'),
    "a tag of one's own": (size("!env X"), '3: batch.global: tag "!env": recipes hold plain values only'),
    "a number as a key": (
        GOOD + "1: 2\n",
        "6: 1: key 1 is not a name; put it in quotes if it is meant to be one",
    ),
    "null as a key": (
        GOOD + "~: 2\n",
        "6: ~: key ~ is not a name; put it in quotes if it is meant to be one",
    ),
    "true as a key": (
        GOOD + "true: 2\n",
        "6: true: key true is not a name; put it in quotes if it is meant to be one",
    ),
    "a list as a key": (GOOD + "? [a]\n: 2\n", "6: a key must be a name"),
    "a second document": (GOOD + "---\nseed: 1\n", "6: a second document begins here; a recipe is one document"),
    "a tab": (
        "task:\n\tname: digits\n",
        "2:1: is not YAML: found character '\\t' that cannot start any token (indent with spaces, not tabs)",
    ),
    "a wrong indent": (
        "task:\n  name: digits\n seed: 1\n",
        "3:2: is not YAML: expected <block end>, but found '<block mapping start>'",
    ),
    "an open bracket": ("task: {name: digits\n", "2:1: is not YAML: expected ',' or '}', but got '<stream end>'"),
    "a control character": (GOOD + "seed: \x07\n", "6:7: is not YAML: character U+0007 is not allowed"),
    "text for a recipe": ("hello\n", "1: a recipe is a mapping of sections, key: value"),
    "a list for a recipe": ("# first\n- a\n", "2: a recipe is a mapping of sections, key: value"),
}


@pytest.mark.parametrize(("text", "expected"), ONE_MISTAKE.values(), ids=ONE_MISTAKE.keys())
def test_one_mistake_gives_one_message(tmp_path: Path, text: str, expected: str) -> None:
    assert mistakes(tmp_path, text) == [f"r.yaml:{expected}"]


def test_the_recipe_that_the_others_change_is_right(tmp_path: Path) -> None:
    assert mistakes(tmp_path, GOOD) == []


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_file_says_what_a_recipe_needs(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, text) == ["r.yaml: is empty; a recipe needs at least task, batch, optimizer and a length"]


def test_five_mistakes_give_five_messages_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
optimizer:
  name: sgd
  learning_rte: 0.1
task: {name: digits}
batch: {global: 0}
precision: fp8
gradient: {clip_norm: big}
"""
    assert mistakes(tmp_path, text) == [
        "r.yaml:1: expected exactly one of epochs, samples, updates; got none",
        "r.yaml:3: optimizer.learning_rte: unknown key; did you mean optimizer.lr?",
        f"r.yaml:5: batch.global: got 0; expected {COUNT}",
        'r.yaml:6: precision: got "fp8"; expected fp64, fp32, tf32, bf16 or fp16',
        f'r.yaml:7: gradient.clip_norm: got "big"; expected {RATE}, or null',
    ]


def test_mistakes_of_the_yaml_and_of_the_recipe_come_together(tmp_path: Path) -> None:
    text = """\
task: {name: digits, shift: 1}
batch: {global: 64, global: 32}
samples: &n 100
epochs: 2
schedule: {warmup: {epochs: 3}, decay: {kind: multistep, milestones: {epochs: [4]}}}
optimizer: !sgd {lr: fast}
early_stopping: {}
"""
    assert mistakes(tmp_path, text) == [
        "r.yaml:1: task.shift: unknown key; expected one of name",
        "r.yaml:2: batch.global: is given twice, first in line 2",
        "r.yaml:3: samples: anchor &n: write the value out; recipes have no references",
        "r.yaml:3: samples: expected exactly one of epochs, samples, updates; got epochs and samples",
        "r.yaml:5: schedule.warmup.epochs: 3 is beyond the run of 2 epochs",
        "r.yaml:5: schedule.decay.milestones.epochs: 4 is beyond the run of 2 epochs",
        'r.yaml:6: optimizer: tag "!sgd": recipes hold plain values only',
        f"r.yaml:7: early_stopping.patience: is required; expected {COUNT}",
    ]


def test_a_thousand_mistakes_are_counted_and_a_hundred_shown(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(GOOD + "".join(f"zz{i}: &a{i} 1\n" for i in range(300)))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert len(caught.value.problems) == 600
    lines = str(caught.value).splitlines()
    assert len(lines) == 101
    assert lines[-1] == "... and 500 more mistakes"
