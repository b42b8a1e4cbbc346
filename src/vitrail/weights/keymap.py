"""Key maps: `their pattern <-> our pattern`, read in either direction.

A format is a list of rules, and both converters are derived from it, so they cannot disagree.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from vitrail.weights.key_pattern import Binding, Pattern
from vitrail.weights.transforms import SAME, Copy, Transform

_compiled = cache(Pattern)


@dataclass(frozen=True)
class Rule:
    """Rule of a key map: keys of the library, our keys, and the transform of the tensors.

    Args:
        theirs: pattern of the library's key, or several if they form one of our tensors.
        ours: pattern of our key, or several; none if we do not store the tensor.
        operation: invertible transform from theirs to ours.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    operation: Transform = SAME

    @cached_property
    def patterns(self) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...]]:
        """Both sides, compiled: theirs, ours."""
        sides = (self.theirs, self.ours)
        theirs, ours = (tuple(map(_compiled, (side,) if isinstance(side, str) else side)) for side in sides)
        return theirs, ours


@dataclass(frozen=True)
class Format:
    """Key map of one library for one architecture.

    Args:
        name: the library: `timm`, `torchvision`, `huggingface`, `official`...
        families: the architectures that it covers.
        rules: the rules of the key map.
        marks: required keys: patterns that must each match some key of a checkpoint in this format.
        writes: whether `convert --to` writes it; False for names that a library no longer, or not yet, keeps in files.
        describe: function from our config to the library's `config.json`, if it has one.
        states: the inverse: fields of our config from such a file that shapes do not determine.
        answers: fields of our config that are the same for all models of the library.
        stored_fields: function from the tensors of a checkpoint and a variant's config to the fields of our config that
            follow from stored tables, if the library stores such.
        shared_with: other libraries with the same key names.
    """

    name: str
    families: tuple[str, ...]
    rules: tuple[Rule, ...]
    marks: tuple[str, ...]
    writes: bool = True
    describe: Callable[[Any], dict[str, Any]] | None = None
    states: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    answers: Mapping[str, Any] = field(default_factory=dict)
    stored_fields: Callable[[Mapping[str, Tensor], object], dict[str, Any]] | None = None
    shared_with: tuple[str, ...] = ()

    @property
    def libraries(self) -> tuple[str, ...]:
        """The libraries whose files have these key names."""
        return (self.name, *self.shared_with)

    def marked(self, keys: Iterable[str]) -> bool:
        """Return whether a checkpoint with these keys can be in this format."""
        keys = list(keys)
        return all(any(_compiled(mark).match(key) is not None for key in keys) for mark in self.marks)

    def read(self, theirs: Mapping[str, Tensor], config: object = None) -> "ConvertedState":
        """Convert tensors of the library to ours; `config` is required if `reads_config`."""
        return _apply(self.rules, theirs, 0, config)

    @property
    def reads_config(self) -> bool:
        """Whether some tensor cannot be read without the config of the model, such as its number of heads."""
        return any(hasattr(rule.operation, "read_with") for rule in self.rules)

    def write(self, ours: Mapping[str, Tensor], config: object) -> "ConvertedState":
        """Convert our tensors to the library's; `config` has the fields that shapes lack, such as the heads."""
        return _apply(self.rules, ours, 1, config)


@dataclass
class ConvertedState:
    """Converted state dict, and the keys that were not converted.

    Args:
        tensors: by new key.
        unexpected: source keys that no rule matches.
        incomplete: source keys of a rule whose other keys are missing.
        differing: source keys that should be copies of a tensor, and are not.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def renamed(said: Mapping[str, Any], **theirs: str) -> dict[str, Any]:
    """Return the numbers of a library's `config.json` under our names.

    Example:
        >>> renamed({"num_attention_heads": 3, "hidden_act": "gelu"}, num_heads="num_attention_heads", drop_path="rate")
        {'num_heads': 3}
    """
    return {field: said[key] for field, key in theirs.items() if isinstance(said.get(key), int | float)}


def _apply(rules: Iterable[Rule], tensors: Mapping[str, Tensor], side: int, config: Any) -> ConvertedState:
    """Collect the keys of each rule, then apply its transform; `side` is the side of the source tensors."""
    result = ConvertedState()
    rules = tuple(rules)
    groups: dict[tuple[int, Binding], dict[int, str]] = {}
    for key in tensors:
        known = False
        for number, rule in enumerate(rules):
            for slot, pattern in enumerate(rule.patterns[side]):
                binding = pattern.match(key)
                if binding is not None:
                    groups.setdefault((number, binding), {})[slot] = key
                    known = True
        if not known:
            result.unexpected.append(key)
    for (number, binding), found in groups.items():
        _convert(rules[number], binding, found, tensors, side, config, result)
    for (number, _), found in groups.items():
        operation: Any = rules[number].operation
        if isinstance(operation, Copy):
            mine = result.tensors.get(operation.of)
            result.differing += [key for key in found.values() if mine is not None and not _equal(tensors[key], mine)]
    return result


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors hold the same numbers; of meta tensors only the shapes are known."""
    if one.shape != other.shape or one.is_meta or other.is_meta:
        return one.shape == other.shape
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other.to(one.dtype))


def _convert(
    rule: Rule, binding: Binding, found: dict, tensors: Mapping, side: int, config: Any, result: ConvertedState
) -> None:
    """Apply one rule for one binding of its placeholders."""
    sources, targets = rule.patterns[side], rule.patterns[1 - side]
    absent = [pattern.fill(binding) for slot, pattern in enumerate(sources) if slot not in found]
    if absent:
        result.incomplete += absent
        return
    parts = [tensors[found[slot]] for slot in range(len(sources))]
    operation: Any = rule.operation
    if side == 1:
        made = operation.write(*parts, config=config)
    elif config is not None and hasattr(operation, "read_with"):
        made = operation.read_with(*parts, config=config)
    else:
        made = operation.read(*parts)
    if made and len(made) != len(targets):  # one prefix token cannot be cut into class and distillation token
        result.incomplete += found.values()
        return
    for pattern, tensor in zip(targets, made, strict=False):
        result.tensors[pattern.fill(binding)] = tensor
