"""Data sets: uploaded as a stream, checked, cleaned, kept in versions, and trained on by their id."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from loramill.api.dataset_schemas import (
    CleanRequest,
    DatasetPage,
    DatasetReply,
    DatasetVersionReply,
    DiffQuery,
    RowsQuery,
    UploadQuery,
    ValidateRequest,
)
from loramill.api.dependencies import NAME, Address, User
from loramill.api.routes.experiments import REPORT_POLICY
from loramill.api.schemas import PageQuery
from loramill.api.services import AppServices, Services
from loramill.auth.permissions import CurrentUser, check_task_owner
from loramill.data.datasets import Dataset, DatasetStore, VersionInfo
from loramill.errors import NotFoundError, Problem, RequestInvalidError
from loramill.jobs.datasets import NewData

router = APIRouter(prefix="/datasets", tags=["datasets"])

FILE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The file itself: csv, tsv, jsonl, parquet, or an archive of train.* and validation.*.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    "responses": {507: {"description": "The disk is full."}},
}


def own_dataset(
    services: Services,
    user: User,
    dataset_id: Annotated[str, PathParameter(pattern=NAME, examples=["u1_d0123456789abcdef"])],
) -> Dataset:
    """A data set that the user may see."""
    with services.database.reading() as session:
        dataset = DatasetStore(session).get(dataset_id)
    check_task_owner(user, dataset.owner)
    return dataset


OwnDataset = Annotated[Dataset, Depends(own_dataset)]


def room_to_upload(request: Request, user: User, services: Services) -> CurrentUser:
    """Checked before the body is read: that it is a file, and that there is room for one."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        fix = "As with: curl --data-binary @reviews.csv '/datasets?filename=reviews.csv'"
        raise RequestInvalidError([Problem("body", None, "must be the file itself, not a form")], fix=fix)
    services.auth.limits.check_submit(user.id)
    services.datasets.check_room(user.id)
    return user


Uploader = Annotated[CurrentUser, Depends(room_to_upload)]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="The newest one by default.")]


@router.post("", status_code=201, openapi_extra=FILE_BODY)
async def upload(
    request: Request, query: Annotated[UploadQuery, Query()], user: Uploader, services: Services, address: Address
) -> DatasetReply:
    """Upload a data set. The body is the file; an archive may hold `train.*`, `validation.*` and `test.*`."""
    with services.datasets.staging(query.filename) as file:
        await _receive(request, file)
        new = NewData(file, query.filename, query.name or "", query.description, query.columns)
        dataset, info = await run_in_threadpool(services.datasets.add, new, user.actor(address))
    return DatasetReply.of(dataset, [info])


@router.get("")
def list_datasets(query: Annotated[PageQuery, Query()], user: User, services: Services) -> DatasetPage:
    """Your data sets, newest first; an administrator sees everybody's."""
    owner = None if user.is_admin else user.id
    with services.database.reading() as session:
        store = DatasetStore(session)
        found = store.list_page(owner=owner, before=query.cursor, limit=query.limit + 1)
        items = [DatasetReply.of(dataset, store.versions(dataset)) for dataset in found[: query.limit]]
    more = str(found[query.limit - 1].number) if len(found) > query.limit else None
    return DatasetPage(items=items, next_cursor=more)


@router.get("/{dataset_id}")
def dataset(own: OwnDataset, services: Services) -> DatasetReply:
    """A data set and its newest version."""
    with services.database.reading() as session:
        return DatasetReply.of(own, DatasetStore(session).versions(own))


@router.delete("/{dataset_id}", status_code=204)
def delete(own: OwnDataset, user: User, services: Services, address: Address) -> None:
    """Delete a data set with its files; refused while experiments or sweeps of its owner use it."""
    services.datasets.delete(own.id, user.actor(address))


@router.get("/{dataset_id}/versions")
def versions(own: OwnDataset, services: Services) -> list[DatasetVersionReply]:
    """Every version, oldest first."""
    with services.database.reading() as session:
        return [DatasetVersionReply.of(info) for info in DatasetStore(session).versions(own)]


@router.post("/{dataset_id}/versions", status_code=201, openapi_extra=FILE_BODY)
async def upload_version(
    request: Request,
    query: Annotated[UploadQuery, Query()],
    own: OwnDataset,
    user: Uploader,
    services: Services,
    address: Address,
) -> DatasetVersionReply:
    """Upload another state of a data set."""
    with services.datasets.staging(query.filename) as file:
        await _receive(request, file)
        new = NewData(file, query.filename, columns=query.columns)
        info = await run_in_threadpool(services.datasets.add_version, own, new, user.actor(address))
    return DatasetVersionReply.of(info)


@router.post("/{dataset_id}/validate")
def validate(own: OwnDataset, services: Services, body: ValidateRequest | None = None) -> dict[str, Any]:
    """Check every row by every rule, by the rules of the config's defaults without a body; the data is not changed."""
    body = body or ValidateRequest()
    return services.datasets.validate(own, _version(services, own, body.version), body.validation_rules)


@router.post("/{dataset_id}/clean", status_code=201)
def clean(body: CleanRequest, own: OwnDataset, user: User, services: Services, address: Address) -> DatasetVersionReply:
    """Drop and repair rows by rule, as a new version; the old one stays as it is."""
    services.auth.limits.check_submit(user.id)
    info = _version(services, own, body.version)
    return DatasetVersionReply.of(services.datasets.clean(own, info, body.validation_rules, user.actor(address)))


@router.get("/{dataset_id}/report", response_class=HTMLResponse)
def report(own: OwnDataset, services: Services, version: Version = None) -> HTMLResponse:
    """The report of a version as a page, with plots."""
    page = services.datasets.report(own, _version(services, own, version))
    return HTMLResponse(page, headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/{dataset_id}/analysis")
def analysis(own: OwnDataset, services: Services, version: Version = None) -> dict[str, Any]:
    """Labels, lengths, words, languages and repetition of a version, split by split."""
    return services.datasets.analyze(own, _version(services, own, version))


@router.get("/{dataset_id}/rows")
def rows(query: Annotated[RowsQuery, Query()], own: OwnDataset, services: Services) -> list[dict[str, Any]]:
    """Some rows of a version: `text`, perhaps `text_pair`, and `label`."""
    stored_id = _split(_version(services, own, query.version), query.split)
    return services.datasets.rows(stored_id, first=query.first, count=query.count)


@router.get("/{dataset_id}/diff")
def diff(query: Annotated[DiffQuery, Query()], own: OwnDataset, services: Services) -> dict[str, Any]:
    """What changed between two versions: rows added, rows removed, rows with another label."""
    before, after = (_version(services, own, number) for number in (query.before, query.after))
    return services.datasets.diff(_split(before, query.split), _split(after, query.split))


def _version(services: AppServices, own: Dataset, version: int | None) -> VersionInfo:
    with services.database.reading() as session:
        return DatasetStore(session).version(own, version)


def _split(info: VersionInfo, split: str) -> str:
    if split not in info.splits:
        raise NotFoundError(f"Version {info.row.version} has no such split.", fix=f"It has {', '.join(info.splits)}.")
    return info.splits[split]


async def _receive(request: Request, file: Path) -> None:
    """Write the body to a file as it comes; its size is bounded by ``RequestLimits``."""
    with file.open("xb") as target:
        try:
            async for block in request.stream():
                await run_in_threadpool(target.write, block)
        except ClientDisconnect:
            raise RequestInvalidError([], fix="The body ended early: send the file again.") from None
