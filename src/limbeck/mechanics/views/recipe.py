"""A recipe of augmentation: its options, and the order in which they act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import ConfigError, near
from limbeck.core.fields import Hint, Range, fields_of, to_dict, validate
from limbeck.core.task import Task
from limbeck.mechanics.data import arguments, batch_of
from limbeck.mechanics.views.colour import coloured
from limbeck.mechanics.views.covering import erased, masked_in_time
from limbeck.mechanics.views.draws import COLOUR, ERASE, MIX, TIME, TOKENS, normal, state_of, stream, words
from limbeck.mechanics.views.mixing import Mixed, beside, drawn_mix
from limbeck.mechanics.views.moving import GEOMETRY_WORDS, moved, moved_in_time
from limbeck.mechanics.views.tokens import Touch

RECIPE_VERSION = 1  # grows whenever the same fields would give other pixels: it is part of every cache's key
ALWAYS = ("crop", "flip", "shift", "noise", "versions", "seed", "input")  # a recipe names these; an option that came later, only where it is set
ATTENTION = "attention_mask"
Read = Callable[[np.ndarray], Any]


@dataclass(frozen=True, kw_only=True)
class Views:
    """A recipe of augmentation; what is left at its default does nothing.

    Images: crop, shift, flip, colour, noise, erase, mixup or CutMix, in this order. Series: shift, noise, time mask, mixup. Token ids: mask and drop.
    No view is the sample itself: every view id is one draw, the same in each epoch in which it comes up.
    """

    crop: Annotated[int, Range(0, None), "pixels by which the image is extended on each side, mirrored at its edge; a window of its own size is cut out at random"] = 0
    flip: Annotated[bool, "mirror left and right, in half of the views"] = False
    shift: Annotated[int, Range(0, None), "pixels by which the image is moved at most, along each axis, or steps by which a series is moved; zeros fill the gap"] = 0
    noise: Annotated[float, Range(0, None), "standard deviation of the noise that is added, in the input's own unit"] = 0.0
    versions: Annotated[int, Range(1, None), Hint("A view is chosen by epoch mod versions."), "how many different views of a sample there are"] = 8
    seed: Annotated[int, Range(0, 2**63 - 1), "chooses all draws"] = 0
    input: Annotated[int | str, Range(0, None), "which of the model's inputs is augmented: its position (positional ones first), or its keyword"] = 0
    brightness: Annotated[float, Range(0, 1), "images are made brighter or darker by a factor in [1 − this, 1 + this]"] = 0.0
    contrast: Annotated[float, Range(0, 1), "the same, around the mean grey of each image"] = 0.0
    saturation: Annotated[float, Range(0, 1), "the same, around the grey of each pixel; three channels"] = 0.0
    black: Annotated[tuple[float, ...], "for colour: the value that stands for black, one for all channels or one each"] = (0.0,)
    white: Annotated[tuple[float, ...], "for colour: the value that stands for white; brighter is cut off"] = (1.0,)
    erase: Annotated[float, Range(0, 1), "share of the views in which a rectangle of the image is covered"] = 0.0
    erase_least: Annotated[float, Range(0, 1, closed="neither"), "the least share of the image that it covers"] = 0.02
    erase_most: Annotated[float, Range(0, 1, closed="right"), "the largest"] = 0.4
    fill: Annotated[float, "what `erase` and `time_mask` put there"] = 0.0
    mixup: Annotated[float, Range(0, 1), "share of the views in which a sample is blended with another, λ even in [0, 1]"] = 0.0
    cutmix: Annotated[float, Range(0, 1), "share of the views in which a rectangle of another image is pasted, its area even in [0, 1] before it is cut off at the edge"] = 0.0
    time_mask: Annotated[int, Range(0, None), "steps of a series, its last axis, that are covered at most"] = 0
    time_masks: Annotated[int, Range(1, None), "how many such stretches"] = 1
    token_drop: Annotated[float, Range(0, 1, closed="left"), "how likely a token is left out; the others close up"] = 0.0
    token_mask: Annotated[float, Range(0, 1), "how likely a token is replaced by `mask_id`"] = 0.0
    mask_id: Annotated[int | None, Range(0, None), "the token that hides another"] = None
    pad_id: Annotated[int | None, Range(0, None), "the token that pads, for `token_drop`; never touched"] = None
    pad_side: Annotated[Literal["right", "left"], "where samples are padded"] = "right"
    keep_ids: Annotated[tuple[int, ...] | None, "tokens that are never touched: special ones, and padding where no attention mask tells it; () if all may be"] = None
    attention: Annotated[int | str | None, "which input is the attention mask (1: a token that counts); none: `attention_mask`, if there is one"] = None
    along: Annotated[tuple[int | str, ...], "other inputs with a value for each token, which `token_drop` closes up too: token types"] = ()

    def __post_init__(self) -> None:
        validate(self, where="views")
        _together(self)

    @property
    def mixes(self) -> tuple[str, ...]:
        """What mixes two samples, by name."""
        return tuple(name for name in ("mixup", "cutmix") if getattr(self, name))

    @property
    def reads_tokens(self) -> bool:
        """Whether the input is token ids, instead of numbers."""
        return bool(self.token_drop or self.token_mask)

    def recipe(self) -> dict[str, Any]:
        """All that decides the pixels, as plain data: for cache keys."""
        plain = {f.name: f.default for f in fields_of(Views) if f.name not in ALWAYS}
        return {"version": RECIPE_VERSION, **{name: value for name, value in to_dict(self).items() if name not in plain or getattr(self, name) != plain[name]}}

    def apply(self, samples: Tensor, ids: np.ndarray, view: np.ndarray | int) -> Tensor:
        """These views of these samples, in their own dtype and on their own device.

        Args:
            samples: Images [batch, channels, height, width] or series [batch, …, time]; with noise alone, any shape with the batch first.
            ids: One sample id for each row; the id, not the place in the batch, decides.
            view: View id, one for all or one for each; taken mod `versions`.
        Raises: ConfigError if the shape or the dtype can't take what the recipe asks for, or if it must read more than these samples.
        """
        if self.mixes or self.reads_tokens:
            wants = "the partners' samples" if self.mixes else "the attention mask"
            raise ConfigError(f"views.apply gets samples alone, and {', '.join(self.mixes) or 'token_drop or token_mask'} needs {wants}. Call views.apply_to.")
        return self._numbers(samples, ids, state_of(self.seed, ids, np.asarray(view) % self.versions))

    def apply_to(self, task: Task, batch: Any, ids: np.ndarray, view: np.ndarray | int) -> tuple[tuple, dict[str, Any]]:
        """The model's arguments for this batch of the training split, under these views. Raises: as `see`."""
        return self.see(task, batch, ids, view, size=self.size_alone(task))[:2]

    def see(
        self, task: Task, batch: Any, ids: np.ndarray, view: np.ndarray | int, *, read: Read | None = None, size: tuple[int, ...] | None = None
    ) -> tuple[tuple, dict[str, Any], Mixed | None]:
        """The model's arguments for this batch of the training split under these views, and how samples were mixed.

        read: the batch of other training samples, by their numbers; None reads them one by one. size: that every sample must have.
        Raises: ConfigError if there is no such input, or it can't take what the recipe asks for.
        """
        args, kwargs = arguments(task, batch)
        found, value = _place("input", self.input, args, kwargs), self.chosen(args, kwargs)
        state = state_of(self.seed, ids, np.asarray(view) % self.versions)
        if self.reads_tokens:
            _counted(value, ids)
            return *self._with_tokens(args, kwargs, found, value, state), None
        self._of_size(value, size)
        seen, mixed = self._numbers(value, ids, state), None
        if self.mixes:
            mix = drawn_mix(stream(state, MIX), ids, len(task.split("train")), mixup=self.mixup, cutmix=self.cutmix)
            partners = beside((read or (lambda wanted: batch_of(task, "train", wanted)))(mix.partners), value.device)
            theirs = self.chosen(*arguments(task, partners))
            self._of_size(theirs, tuple(value.shape[1:]))
            other = self._numbers(theirs, mix.partners, state_of(self.seed, mix.partners, np.asarray(view) % self.versions))
            seen, share = mix.applied(seen, other)
            mixed = Mixed(mix.partners, torch.from_numpy(share), partners)
        return *_with({found: seen}, args, kwargs), mixed

    def chosen(self, args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
        """The input that is augmented. Raises ConfigError if there is none, or it is no tensor."""
        found = _place("input", self.input, args, kwargs)
        value = kwargs[found] if isinstance(found, str) else args[found]
        if not isinstance(value, Tensor):
            raise ConfigError(f"views.input must be a tensor; input {found!r} is {type(value).__name__}. Choose another, or change Task.inputs.")
        return value

    def size_alone(self, task: Task) -> tuple[int, ...] | None:
        """The size of a sample that stands alone, where the task's collate might pad it to that of others."""
        return tuple(self.chosen(*arguments(task, batch_of(task, "train", [0]))).shape[1:]) if task.collate and not self.reads_tokens else None

    def _numbers(self, samples: Tensor, ids: np.ndarray, state: np.ndarray) -> Tensor:
        """All that looks at one sample's numbers alone."""
        self._check(samples, ids)
        if samples.dim() == 4 and (self.crop or self.shift or self.flip):
            samples = moved(samples, words(state, 0, GEOMETRY_WORDS), crop=self.crop, shift=self.shift, flip=self.flip)
        elif self.shift:
            samples = moved_in_time(samples, words(state, 0, GEOMETRY_WORDS), shift=self.shift)
        if self.brightness or self.contrast or self.saturation:
            strengths = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
            samples = coloured(samples, stream(state, COLOUR), **strengths, black=self.black, white=self.white)
        if self.noise:
            added = torch.from_numpy(normal(state, GEOMETRY_WORDS, samples[0].numel())).mul_(self.noise).view(samples.shape)
            samples = samples + added.to(samples.device, samples.dtype)
        if self.erase:
            samples = erased(samples, stream(state, ERASE), share=self.erase, least=self.erase_least, most=self.erase_most, fill=self.fill)
        if self.time_mask:
            samples = masked_in_time(samples, stream(state, TIME), longest=self.time_mask, count=self.time_masks, fill=self.fill)
        return samples

    def _with_tokens(self, args: tuple, kwargs: Mapping[str, Any], found: int | str, ids: Tensor, state: np.ndarray) -> tuple[tuple, dict[str, Any]]:
        inputs: dict[int | str, Any] = {**dict(enumerate(args)), **kwargs}
        mask = _place("attention", self.attention, args, kwargs) if self.attention is not None else ATTENTION if ATTENTION in kwargs else None
        along = [_place("along", name, args, kwargs) for name in self.along]
        odd = [name for name, value in inputs.items() if name not in (found, mask, *along) and isinstance(value, Tensor) and value.shape[:2] == ids.shape]
        if self.token_drop and odd:
            raise ConfigError(f"views.token_drop closes up the tokens, and input {odd[0]!r} has a value for each too. Name it in views.along, or as views.attention.")
        touch = Touch(self.token_drop, self.token_mask, self.mask_id, self.pad_id, self.pad_side, self.keep_ids or ())
        seen, attention, beside_it = touch.applied(ids, None if mask is None else inputs[mask], [inputs[name] for name in along], stream(state, TOKENS))
        new = {found: seen, **dict(zip(along, beside_it, strict=True))}
        return _with(new if mask is None else {**new, mask: attention}, args, kwargs)

    def _of_size(self, value: Tensor, size: tuple[int, ...] | None) -> None:
        if size is not None and tuple(value.shape[1:]) != size:
            raise ConfigError(
                f"views must get samples of one size; one is {list(size)}, and this batch holds {list(value.shape[1:])}. Padding to the batch would decide a view: "
                "pad all samples to one size."
            )

    def _check(self, samples: Tensor, ids: np.ndarray) -> None:
        shape = list(samples.shape)
        _counted(samples, ids)
        images = [name for name in ("crop", "flip", "brightness", "contrast", "saturation", "erase", "cutmix") if getattr(self, name)]
        if images and samples.dim() != 4:
            raise ConfigError(
                f"views.{' and '.join(images)} must get images [batch, channels, height, width], got {shape}. Point views.input at the images, or use noise, shift and mixup alone."
            )
        series = [name for name in ("shift", "time_mask") if getattr(self, name)]
        if series and samples.dim() < 2:
            raise ConfigError(f"views.{' and '.join(series)} must get images or series [batch, …, time], got {shape}. Point views.input at one, or use noise alone.")
        sides = {"crop": shape[2:], "shift": shape[2:] if samples.dim() == 4 else shape[-1:], "time_mask": shape[-1:]}
        for name, side in sides.items():
            if getattr(self, name) and getattr(self, name) >= min(side):
                raise ConfigError(
                    f"views.{name} must be smaller than the image's or the series' sides {side}, got {getattr(self, name)}. "
                    "A mirror can't reach further, and nothing would be left. Take fewer."
                )
        if self.noise and not samples.is_floating_point():
            raise ConfigError(f"views.noise must get floating-point numbers, got {samples.dtype}. Point views.input at floats, or set noise to 0.")
        if (self.brightness or self.contrast or self.saturation) and not (samples.is_floating_point() or samples.dtype == torch.uint8):
            raise ConfigError(f"views.brightness, contrast and saturation must get floating-point numbers or 8-bit pixels, got {samples.dtype}. Convert them in the data set.")


def _together(views: Views) -> None:
    """Rules over several options. Raises ConfigError."""
    if views.mixup + views.cutmix > 1:
        raise ConfigError(f"views.mixup and cutmix must add up to at most 1, got {views.mixup:g} and {views.cutmix:g}. A view is mixed in one way: take shares, as in 0.5 and 0.5.")
    if views.erase_least > views.erase_most:
        raise ConfigError(f"views.erase_least must be at most erase_most, got {views.erase_least:g} and {views.erase_most:g}. Exchange them.")
    if not views.black or not views.white or len({len(views.black), len(views.white)} - {1}) > 1:
        raise ConfigError(f"views.black and white must have one number, or one a channel, got {len(views.black)} and {len(views.white)}. Give as many.")
    if any(low >= high for low, high in zip(views.black * len(views.white), views.white * len(views.black), strict=True)):
        raise ConfigError(f"views.black must be below views.white, got {views.black} and {views.white}. Exchange them.")
    if not views.reads_tokens:
        return
    if views.token_drop + views.token_mask > 1:
        raise ConfigError(f"views.token_drop and token_mask must add up to at most 1, got {views.token_drop:g} and {views.token_mask:g}. Take less.")
    for name, needed, way in (("token_mask", "mask_id", "the tokenizer's mask token"), ("token_drop", "pad_id", "the tokenizer's padding token")):
        if getattr(views, name) and getattr(views, needed) is None:
            raise ConfigError(f"views.{name} needs {needed}, got none. Give {way}, as a number.")
    if views.keep_ids is None:
        raise ConfigError("views.token_drop and token_mask need keep_ids, got none. List the special tokens, as in the tokenizer's all_special_ids; () if there are none.")
    numbers = ("crop", "flip", "shift", "noise", "brightness", "contrast", "saturation", "erase", "mixup", "cutmix", "time_mask")
    if odd := [name for name in numbers if getattr(views, name)]:
        raise ConfigError(f"views.{odd[0]} acts on numbers, and token_drop and token_mask on token ids: one input can't be both. Leave one out.")


def _counted(samples: Tensor, ids: np.ndarray) -> None:
    if len(ids) != len(samples):
        raise ConfigError(f"views.apply must get one id for each sample, got {len(ids)} ids for {len(samples)} samples. Pass the ids of this batch.")


def _place(option: str, name: int | str, args: tuple, kwargs: Mapping[str, Any]) -> int | str:
    """Which argument is meant: a position among the positional ones, or a keyword."""
    places: list[int | str] = [*range(len(args)), *kwargs]
    if isinstance(name, str) and name in kwargs:
        return name
    if isinstance(name, int) and 0 <= name < len(places):
        return places[name]
    hint = near(name, kwargs) if isinstance(name, str) and kwargs else ""
    raise ConfigError(f"views.{option} must be one of the model's inputs {places}, got {name!r}. {hint} Give a position or a keyword.".replace("  ", " "))


def _with(new: Mapping[int | str, Any], args: tuple, kwargs: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The arguments with these put in their places."""
    return tuple(new.get(i, value) for i, value in enumerate(args)), {name: new.get(name, value) for name, value in kwargs.items()}
