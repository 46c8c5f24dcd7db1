"""The record of experiments: lists, totals, comparison, and the files of each."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, PlainTextResponse

from loramill.api.dependencies import Address, OwnExperiment, User, folder_of
from loramill.api.schemas import ArtifactReply, ChangeExperiment, CompareQuery, ExperimentListQuery, ExperimentQuery
from loramill.api.services import Services
from loramill.auth.permissions import CurrentUser, check_admin, check_task_owner
from loramill.errors import NotFoundError
from loramill.experiments.compare import compare_runs
from loramill.experiments.deletion import delete_files
from loramill.experiments.folder import results_holding
from loramill.experiments.record_file import changing
from loramill.experiments.search import ExperimentPage
from loramill.experiments.statistics import ExperimentStatistics
from loramill.experiments.store import ExperimentStore
from loramill.experiments.summaries import ExperimentSummary

router = APIRouter(prefix="/experiments", tags=["experiments"])

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""A report shows texts of the data set, which strangers wrote: nothing in it may run."""


@router.get("")
def list_experiments(query: Annotated[ExperimentListQuery, Query()], user: User, services: Services) -> ExperimentPage:
    """One page of experiments; users ask with `owner=me`, administrators see all."""
    _check_scope(query, user)
    with services.database.reading() as session:
        return ExperimentStore(session).list_page(
            query.filter_for(user.id), order=query.order, limit=query.limit, cursor=query.cursor
        )


@router.get("/stats")
def statistics(query: Annotated[ExperimentQuery, Query()], user: User, services: Services) -> ExperimentStatistics:
    """Totals over the experiments that pass the filter."""
    _check_scope(query, user)
    with services.database.reading() as session:
        return ExperimentStore(session).statistics(query.filter_for(user.id))


@router.get("/compare")
def compare(query: Annotated[CompareQuery, Query()], user: User, services: Services) -> dict[str, Any]:
    """Experiments side by side: what was set differently, what came out, and whether that is more than luck."""
    with services.database.reading() as session:
        rows = [ExperimentStore(session).get(experiment_id) for experiment_id in query.ids]
    for row in rows:
        check_task_owner(user, row.owner)
    return compare_runs([folder_of(services, row) for row in rows]).as_dict()


@router.get("/{experiment_id}")
def experiment(row: OwnExperiment, services: Services) -> ExperimentSummary:
    with services.database.reading() as session:
        return ExperimentStore(session).get_summary(row.id)


@router.patch("/{experiment_id}")
def change(
    body: ChangeExperiment, row: OwnExperiment, user: User, services: Services, address: Address
) -> ExperimentSummary:
    """Change notes, tags, and whether plain lists show it."""
    with changing(services.database, services.settings.results_folder, row.id) as (store, _):
        if body.notes is not None:
            store.set_notes(row.id, body.notes)
        if body.archived is not None:
            store.set_archived(row.id, body.archived)
        store.add_tags(row.id, body.add_tags)
        store.remove_tags(row.id, body.remove_tags)
        services.auth.audit.record(store.session, user.actor(address), "experiment.change", row.id)
    with services.database.reading() as session:
        return ExperimentStore(session).get_summary(row.id)


@router.delete("/{experiment_id}", status_code=204)
def delete(row: OwnExperiment, user: User, services: Services, address: Address) -> None:
    """Delete an experiment and its files."""
    with services.auth.audit.transaction(user.actor(address), "experiment.delete", row.id) as session:
        store = ExperimentStore(session)
        results = results_holding(services.settings.results_folder, row.id, store.get(row.id).config)
        store.delete(row.id)
    delete_files(results, row.id)


@router.get("/{experiment_id}/config")
def config(row: OwnExperiment, services: Services) -> dict[str, Any]:
    """Everything that decided the run."""
    with services.database.reading() as session:
        return ExperimentStore(session).get(row.id).config


@router.get("/{experiment_id}/metrics")
def metrics(row: OwnExperiment, services: Services) -> dict[str, Any]:
    """The content of `metrics.json`; empty before the run has finished."""
    return folder_of(services, row).read_metrics()


@router.get("/{experiment_id}/logs", response_class=PlainTextResponse)
def logs(
    row: OwnExperiment, services: Services, tail: Annotated[int, Query(ge=1, le=100_000)] = 1000
) -> PlainTextResponse:
    """The last lines of `logs.txt`."""
    lines = folder_of(services, row).read_log().splitlines(keepends=True)
    return PlainTextResponse("".join(lines[-tail:]))


@router.get("/{experiment_id}/report", response_class=FileResponse)
def report(row: OwnExperiment, services: Services) -> FileResponse:
    """The HTML report."""
    file = folder_of(services, row).report_file
    if not file.is_file():
        raise NotFoundError(f"Experiment {row.id!r} has no report.", fix="It is written when the run has finished.")
    return FileResponse(file, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})


@router.get("/{experiment_id}/artifacts")
def artifacts(row: OwnExperiment, services: Services) -> list[ArtifactReply]:
    """The files of the run: checkpoints, the final model, predictions."""
    folder = folder_of(services, row).artifacts
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [ArtifactReply(path=str(path.relative_to(folder)), bytes=path.stat().st_size) for path in files]


@router.get("/{experiment_id}/artifacts/{path:path}", response_class=FileResponse)
def artifact(path: str, row: OwnExperiment, services: Services) -> FileResponse:
    """One file of the run."""
    folder = folder_of(services, row).artifacts.resolve()
    missing = NotFoundError("There is no such file.", fix=f"List them: GET /experiments/{row.id}/artifacts")
    try:
        file = (folder / path).resolve()
        if not (file.is_relative_to(folder) and file.is_file()):
            raise missing
    except (OSError, ValueError) as error:  # a NUL, or a name that is too long
        raise missing from error
    return FileResponse(file, media_type="application/octet-stream", filename=file.name)


def _check_scope(query: ExperimentQuery, user: CurrentUser) -> None:
    """Users see what they own, and have to say so; what they cannot see is refused rather than left out."""
    if query.owner not in ("me", user.id):
        check_admin(user)
