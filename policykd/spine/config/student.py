"""The section `student`: what is trained (docs/students.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from policykd.spine.config.section import Auto, Positive, Section

Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=0, le=8)]
Channels = Annotated[int, Field(ge=1, le=512)]
Leaves = Annotated[int, Field(ge=2, le=4096)]


class StudentConfig(Section):
    """The student's architecture. A list trains a family: every width x depth x channels x seed (of trees
    leaves x seed), on the same data."""

    kind: Literal["mlp", "linear", "gru", "cnn", "multi", "tree"] = "mlp"
    """mlp: `depth` hidden layers. linear: an mlp without any. gru: a memory of `width` numbers and a linear head, for
    what one observation does not tell. cnn: convolutions of an image. multi: of a Dict or Tuple, an encoder for each
    entry: convolutions of an image, a layer of `width` units of anything else. tree: a decision tree of at most
    `leaves` leaves, which can be read (docs/methods/trees.md; `policykd[tree]`)."""
    width: Auto | Width | Annotated[list[Width], Field(min_length=1)] = "auto"
    """Units of each hidden layer, and of each vector's encoder; numbers that a gru remembers."""
    depth: Depth | Annotated[list[Depth], Field(min_length=1)] = 2
    """Hidden layers; 0 is a linear policy. Behind convolutions 1 where nothing is said."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of an mlp, and of convolutions, where it is relu if nothing is said."""
    conv: Literal["nature", "impala"] = "nature"
    """Convolutions after Mnih et al. 2015, or residual blocks after Espeholt et al. 2018 (docs/students.md)."""
    channels: Auto | Channels | Annotated[list[Channels], Field(min_length=1)] | None = "auto"
    """Maps that the first convolution makes, the others make twice as many; null for students without images."""
    leaves: Auto | Leaves | Annotated[list[Leaves], Field(min_length=1)] | None = "auto"
    """Leaves that a tree may have, auto: 32; null for students of other kinds."""
    seeds: Positive = 1
    """Members per architecture that differ by their initial weights; trees, by the states that they are fitted to."""
    keys: Annotated[list[str], Field(min_length=1)] | None = None
    """Entries of a Dict observation that the student sees; without them all that the teacher sees."""
    wrappers: list[str | dict[str, dict[str, Any]]] = []
    """Wrappers, innermost first, named as in env.wrappers, through which the student sees the environment in the place
    of the teacher's; only such as change observations. None: it sees what the teacher sees."""
    start: str | None = None
    """A student.safetensors, or a run folder that holds one: every member starts from its weights, not from random
    ones. It has as many hidden layers, none of them wider than the members' (or compress.prune removes units)."""

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, given: Any) -> Any:
        """The defaults of a kind; a linear student is the mlp of depth 0."""
        kind = given.get("kind") if isinstance(given, dict) else None
        if kind == "gru":
            return {"depth": 1, **given}
        if kind in ("cnn", "multi"):
            return {"depth": 1, "activation": "relu", **given}
        if kind != "linear":
            return given
        for name, none in (("depth", (0, [0])), ("width", ("auto",))):
            if given.get(name, none[0]) not in none:
                raise ValueError(
                    f"{name} {given[name]}: a linear student has no {name}: leave student.{name} out, or set it to "
                    f"{none[0]} where a file names it"
                )
        return {**given, "kind": "mlp", "depth": [0]}

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.kind == "gru" and self.depth not in (1, [1]):
            raise ValueError(f"depth {self.depth}: a gru has one recurrent layer: set student.depth to 1")
        if self.kind == "gru" and self.activation != "tanh":
            raise ValueError(f"activation {self.activation} has no effect on a gru: set student.activation to tanh")
        if self.start is not None and self.kind != "mlp":
            raise ValueError(
                f"start: only students of kind mlp start from another one, and this is a {self.kind}: leave "
                "student.start out"
            )
        if self.start is not None and self.seeds > 1:
            raise ValueError(
                f"seeds {self.seeds}: members that differ by their initial weights alone would all be the same, since "
                "student.start gives them theirs: set student.seeds to 1"
            )
        images = ("cnn", "multi")
        networks = ("mlp", "gru", *images)
        for name, nothing, kinds in (
            ("conv", ("nature",), images),
            ("channels", ("auto", None), images),
            ("leaves", ("auto", None), ("tree",)),
            ("width", ("auto",), networks),
            ("depth", (2,), networks),
            ("activation", ("tanh",), networks),
        ):
            if self.kind not in kinds and (found := getattr(self, name)) not in nothing:
                kind = f"students of kind {self.kind}"
                raise ValueError(
                    f"{name} {found} has no effect on {kind}: leave student.{name} out, or set it to "
                    f"{'null' if nothing[-1] is None else nothing[-1]} where a file names it"
                )
        return self
