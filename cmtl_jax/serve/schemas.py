"""What the endpoints take and give, as their description shows it."""

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmtl_jax.prediction import zones as zones_lib

Coordinate = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e6)]
Corners = Annotated[list[tuple[Coordinate, Coordinate]], Field(min_length=3, max_length=1000)]
ZONES = {"unit": "pixels", "zones": {"Stage": [[120, 300], [860, 310], [900, 640], [80, 650]]}}


class Zones(BaseModel):
    """Named polygons, in the form of the files of `python -m cmtl_jax.predict --roi`.

    They may overlap. A pixel belongs to a zone where its centre lies inside.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": ZONES})
    unit: Literal["pixels", "fraction"] = Field(
        "pixels", description="of the corners; `fraction` of the picture's width and height"
    )
    zones: dict[str, Corners] = Field(
        max_length=100, description="corners (x, y) of each zone by its name"
    )

    def counts(self, density: np.ndarray) -> dict[str, float]:
        """People in each zone of a density map [H, W].

        Raises:
            UserError: a name that is none, sides that cross, corners outside the picture.
        """
        found = {}
        for name in self.zones:  # one after the other, as each needs a mask of the whole picture
            found |= self._zones(name).counts(density)
        return found

    def polygons(self, height: int, width: int) -> dict[str, np.ndarray]:
        """Corners of each zone in a picture of that size, float64 [N, 2] (x, y), pixels.

        Raises:
            UserError: as `counts`.
        """
        found = {}
        for name in self.zones:
            found |= self._zones(name).polygons(height, width)
        return found

    def _zones(self, name: str) -> zones_lib.Zones:
        return zones_lib.Zones({name: np.array(self.zones[name], np.float64)}, self.unit)


class ZoneCounts(BaseModel):
    """People in each zone, by its name."""

    zones: dict[str, float] = Field(examples=[{"Stage": 57.31}])


class Colors(BaseModel):
    """The colours of map.png: they follow the square root of the density."""

    top: float = Field(description="density of the last colour, in `unit`", examples=[0.45])
    clipped: bool = Field(description="whether some of the map is denser than `top`")
    unit: str = Field(examples=["people per 32×32 px"])


class Links(BaseModel):
    """Where the maps of a count are, while it is kept."""

    density: str = Field(description="float32 [H, W], people per pixel, as numpy.save writes")
    overlay: str = Field(description="PNG: the map over the picture, with count and colour bar")
    map: str = Field(description="PNG: the map alone, translucent")
    picture: str = Field(description="JPEG: the picture in the colours that the network saw")
    zones: str = Field(description="POST zones to it to count in them")


class Counted(BaseModel):
    """A count. It is kept in memory, under `id`, until newer ones need the room."""

    id: str = Field(examples=["bXk0m1W9T3u8JfE2cK5qZg"])
    name: str = Field(description="of the file", examples=["square.jpg"])
    weights: str = Field(examples=["auto"])
    count: float = Field(description="people: the sum of the density map", examples=[130.69])
    width: int = Field(description="pixels of the upright picture", examples=[1024])
    height: int = Field(examples=[768])
    zones: dict[str, float] = Field(
        description="people in each zone, by its name", examples=[{"Stage": 57.31}]
    )
    scale: float = Field(description="of the sides before counting", examples=[1.0])
    warning: str | None = Field(
        description="why the count may be far off", examples=["people seem to stand ... apart"]
    )
    better_scale: float | None = Field(
        description="what to try then, where it can be asked for", examples=[0.5]
    )
    seconds: float = Field(description="spent on counting", examples=[2.5])
    colors: Colors
    links: Links


class Weights(BaseModel):
    """Weights to count with."""

    name: str = Field(examples=["auto"])
    model: str = Field(examples=["cmtl"])
    trained_on: str = Field(examples=["shanghaitech-part_b"])
    step: int | None = Field(description="of the training; null where it is not known")


class Limits(BaseModel):
    """What is beyond these is refused."""

    upload_bytes: int = Field(description="size of a picture's file", examples=[33554432])
    pixels: int = Field(description="of a picture, each side counted as 64 or more")
    seconds: float = Field(description="from a request's first byte to its answer")
    waiting: int = Field(description="requests that wait while one is counted")


class Health(BaseModel):
    """The server answers."""

    status: str = Field(examples=["ok"])
    version: str = Field(examples=["0.1.0"])
    in_work: int = Field(description="pictures counted or waiting", examples=[0])
    formats: list[str] = Field(description="endings of picture files", examples=[[".jpg", ".png"]])
    limits: Limits


class Error(BaseModel):
    """Why there is no answer, in one line."""

    error: str
