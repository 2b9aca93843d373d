"""The endpoints: pictures in, counts and maps out. Nothing is written to disk."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import fastapi
import jinja2
import pydantic
from fastapi import Depends, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.formparsers import MultiPartParser

from cmtl_jax import console, head_spacing, version
from cmtl_jax.errors import UserError
from cmtl_jax.pictures import SUFFIXES
from cmtl_jax.prediction import overlay
from cmtl_jax.prediction.counter import Counter
from cmtl_jax.serve import heat, schemas, upload
from cmtl_jax.serve.guard import Guard
from cmtl_jax.serve.lane import FullError, StoppedError
from cmtl_jax.serve.limits import Limits
from cmtl_jax.serve.results import GoneError, Result
from cmtl_jax.serve.service import Service
from cmtl_jax.serve.turns import Turns

_PAGE = pathlib.Path(__file__).parent / "page"
_FORM_BYTES = 2**20  # zones, and what stands around a file in a form
_LEAST, _MOST = 0.05, 8  # scale of a picture before counting
_COUNT = "/api/count"
_RESULT = "/api/results/{id}"

_ABOUT = """Counts people in pictures with trained weights.

POST a picture to `/api/count`; the answer has the count and the addresses of its maps. Coordinates
are (x, y) in pixels of the upright picture, from its upper left corner. Errors are JSON, too:
`{"error": "..."}`."""


def _service(request: Request) -> Service:
    return request.app.state.service


_Service = Annotated[Service, Depends(_service)]
_Key = Annotated[str, fastapi.Path(alias="id", description="id of the count")]


def _errors(**texts: tuple[str, str]) -> dict[int | str, dict]:
    """Responses that are errors: e404=(when it is given, what it says); or default=..."""
    return {
        status if status == "default" else int(status[1:]): {
            "description": when,
            "model": schemas.Error,
            "content": {"application/json": {"example": {"error": says}}},
        }
        for status, (when, says) in texts.items()
    }


_ANYWHERE = _errors(
    e403=("asked by another web page", "requests of other web pages are refused"),
    e504=("took too long", "not done within 300 s; send a smaller picture"),
    default=("any other error", "internal error; the server's own output says more"),
)
_KEPT = _errors(e404=("not kept (any more)", str(GoneError())))
_BUSY = _errors(e503=("too many wait already; see Retry-After", str(FullError())))
_ZONES = _errors(e422=("zones that are none", "zones.Stage: List should have at least 3 items"))
router = fastapi.APIRouter(responses=_ANYWHERE)


def _file(kind: str, text: str) -> dict:
    """Arguments of an endpoint that gives a file."""
    return {
        "response_class": Response,
        "responses": _KEPT | _BUSY | {200: {"description": text, "content": {kind: {}}}},
    }


@router.post(
    _COUNT,
    summary="Count people in a picture",
    responses=_BUSY
    | _errors(
        e400=("no form", "There was an error parsing the body"),
        e413=(
            "too many bytes or pixels",
            "photo.png declares 30000 x 30000 pixels, more than the limit of 40,000,000; make it "
            "smaller",
        ),
        e415=(
            "a file of another kind",
            f"page.pdf is none of {', '.join(SUFFIXES)}; save it as JPEG",
        ),
        e422=(
            "no picture, or fields that are not understood",
            "photo.jpg is truncated or not a picture (image file is truncated); replace or remove "
            "it",
        ),
    ),
)
async def count(
    service: _Service,
    file: Annotated[UploadFile, File(description="the picture")],
    weights: Annotated[
        str | None, Form(description="name of weights; the first of /api/weights by default")
    ] = None,
    scale: Annotated[
        float,
        Form(ge=_LEAST, le=_MOST, description="of the sides before counting; maps keep their size"),
    ] = 1.0,
    zones: Annotated[
        str | None,
        Form(
            description="JSON, as the body of /api/results/{id}/zones",
            examples=[json.dumps(schemas.ZONES)],
        ),
    ] = None,
) -> schemas.Counted:
    """Counts the people in one picture, and in zones of it where some are given.

    One picture is counted at a time; others wait, and where too many do, the answer is 503.
    """
    name = upload.file_name(file.filename)
    if weights is None:
        weights = next(iter(service.counters))
    elif weights not in service.counters:
        raise HTTPException(422, f"weights: not one of {', '.join(service.counters)}")
    try:
        wanted = schemas.Zones.model_validate_json(zones or '{"zones": {}}')
    except pydantic.ValidationError as error:
        raise HTTPException(422, f"zones: {_first(error.errors())}") from error
    data = await file.read()
    if len(data) > service.limits.upload_bytes:
        limit = service.limits.upload_bytes / 2**20
        raise HTTPException(413, f"{name} is larger than {limit:g} MiB; make it smaller")
    key, result, counted = await service.count(data, name, weights, scale, wanted)
    found = result.count
    height, width = found.density.shape
    warning, better_scale = _scale_check(result, service.counters[weights])
    address = _RESULT.format(id=key)
    return schemas.Counted(
        id=key,
        name=name,
        weights=weights,
        count=found.count,
        width=width,
        height=height,
        zones=counted,
        scale=result.scale,
        warning=warning,
        better_scale=better_scale,
        seconds=round(result.seconds, 3),
        colors=schemas.Colors(top=result.heat.top, clipped=result.heat.clipped, unit=overlay.UNIT),
        links=schemas.Links(
            density=f"{address}/density.npy",
            overlay=f"{address}/overlay.png",
            map=f"{address}/map.png",
            picture=f"{address}/picture.jpg",
            zones=f"{address}/zones",
        ),
    )


def _scale_check(result: Result, counter: Counter) -> tuple[str | None, float | None]:
    """Whether people stand as in the training data: a warning, and the scale to try then."""
    trained = counter.trained.about.get("head_spacing")
    warning = head_spacing.warning(result.spacing, trained, result.scale)
    if warning is None:
        return None, None
    better = result.scale * trained["median"] / result.spacing
    return warning.partition("; try")[0], better if _LEAST <= better <= _MOST else None


@router.post(
    f"{_RESULT}/zones", summary="Count people in zones", responses=_KEPT | _BUSY | _ZONES
)
async def count_zones(
    service: _Service, key: _Key, zones: schemas.Zones
) -> schemas.ZoneCounts:
    """Counts people in zones of a picture that was counted."""
    return schemas.ZoneCounts(zones=await service.count_zones(key, zones))


@router.get(
    f"{_RESULT}/density.npy",
    summary="The density map",
    **_file("application/octet-stream", "float32 [H, W], people per pixel, as numpy.save writes"),
)
async def density(service: _Service, key: _Key) -> Response:
    """The density map of a count; its sum is the count."""
    return Response(await service.density(key), media_type="application/octet-stream")


@router.get(
    f"{_RESULT}/overlay.png",
    summary="The map over the picture",
    **_file("image/png", "picture, density map, count and colour bar"),
)
async def overlay_png(service: _Service, key: _Key) -> Response:
    """The picture under its density map, with the count and a colour bar."""
    return Response(await service.overlay(key, schemas.Zones(zones={})), media_type="image/png")


_overlay_file = _file("image/png", "picture, density map, zones, counts and colour bar")
_overlay_file["responses"] |= _ZONES


@router.post(f"{_RESULT}/overlay.png", summary="The map and zones over it", **_overlay_file)
async def overlay_with_zones(service: _Service, key: _Key, zones: schemas.Zones) -> Response:
    """The picture under its density map, with zones, all counts and a colour bar."""
    return Response(await service.overlay(key, zones), media_type="image/png")


@router.get(
    f"{_RESULT}/map.png",
    summary="The map alone",
    **_file("image/png", "a translucent layer, at most 1600 pixels a side"),
)
async def map_png(service: _Service, key: _Key) -> Response:
    """The density map in the colours of `scale`, to lay over the picture."""
    return Response(service.get(key).heat.png, media_type="image/png")


@router.get(
    f"{_RESULT}/picture.jpg",
    summary="The picture",
    **_file("image/jpeg", "the picture, at most 1600 pixels a side"),
)
async def picture(service: _Service, key: _Key) -> Response:
    """The picture in the colours that the network saw, for browsers that cannot show its file."""
    return Response(await service.picture(key), media_type="image/jpeg")


@router.delete(_RESULT, status_code=204, summary="Forget a count", responses=_KEPT)
async def forget(service: _Service, key: _Key) -> None:
    """Frees the memory of a count. Those asked for longest ago are forgotten in any case."""
    service.forget(key)


@router.get("/api/weights", summary="Weights to choose from")
async def weights(service: _Service) -> list[schemas.Weights]:
    """The weights that the server was started with; the first are the default."""
    return [
        schemas.Weights(
            name=name,
            model=counter.trained.config.model.name,
            trained_on=counter.trained.about["data"],
            step=counter.trained.step,
        )
        for name, counter in service.counters.items()
    ]


@router.get("/api/health", summary="Whether the server answers")
async def health(service: _Service) -> schemas.Health:
    """Version, load and limits."""
    return schemas.Health(
        status="ok",
        version=version.describe(),
        in_work=service.counting.taken,
        formats=list(SUFFIXES),
        limits=schemas.Limits(**dataclasses.asdict(service.limits)),
    )


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(_PAGE / "index.html")


@router.get("/scale.png", include_in_schema=False)
async def scale() -> Response:
    return Response(heat.scale(), media_type="image/png")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE.parent), autoescape=True, trim_blocks=True
    )
    template = environment.get_template("docs.html.j2")
    return HTMLResponse(template.render(api=request.app.openapi(), address=request.base_url))


def create(
    counters: Mapping[str, Counter], limits: Limits = Limits(), names: Iterable[str] = ()
) -> fastapi.FastAPI:
    """The application.

    Args:
        counters: by the names that people see; the first is the default.
        limits: what is refused.
        names: host names that it is known by, beside addresses and localhost.
    """
    app = fastapi.FastAPI(
        title="cmtl_jax",
        version=version.describe(),
        description=_ABOUT,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
    )
    service = app.state.service = Service(counters, limits)
    app.include_router(router)
    app.mount("/page", StaticFiles(directory=_PAGE))
    body_bytes = limits.upload_bytes + _FORM_BYTES
    MultiPartParser.spool_max_size = body_bytes  # longer parts would go to disk
    # The last one added comes first.
    app.add_middleware(Turns, lane=service.counting, path=_COUNT, seconds=limits.seconds)
    app.add_middleware(Guard, names=names, body_bytes=body_bytes)
    for kind in _STATUS:
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(AnyHTTPException, _http)
    app.add_exception_handler(Exception, _bug)
    return app


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


_STATUS = {
    upload.FormatError: 415,
    upload.SizeError: 413,
    UserError: 422,
    GoneError: 404,
    FullError: 503,
    StoppedError: 503,
}


async def _refused(_: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    return _error(status, console.one_line(error), {"Retry-After": "2"} if status == 503 else None)


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    return _error(422, _first(error.errors()))


async def _http(_: Request, error: AnyHTTPException) -> JSONResponse:
    return _error(error.status_code, console.one_line(error.detail), error.headers)


async def _bug(_: Request, __: Exception) -> JSONResponse:
    return _error(500, "internal error; the server's own output says more")


def _first(errors: Sequence[Mapping]) -> str:
    """The first of the errors that pydantic found, in one line, without what was sent."""
    where = ".".join(str(part) for part in errors[0]["loc"] if part != "body")
    return console.one_line(f"{where}: {errors[0]['msg']}" if where else errors[0]["msg"])
