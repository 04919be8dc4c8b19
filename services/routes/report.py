"""/v1/experiments/{experiment}/report: what the page shows, as one file."""

from fastapi import APIRouter, Response

from services.page import policy, render
from services.page.snapshot import snapshot
from services.problems import documented
from services.routes.context import ExperimentRef, Service

router = APIRouter(prefix="/v1/experiments/{experiment}", tags=["experiments"])


@router.get(
    "/report",
    operation_id="get_report",
    summary="The page of an experiment as one HTML file that opens anywhere",
    response_class=Response,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "Scripts, styles and figures are in it."},
        **documented(404, 422, 502),
    },
)
def report(service: Service, experiment: ExperimentRef) -> Response:
    record = service.experiments.get(experiment)
    text = render.report(snapshot(service, record, with_logs=True))
    headers = {"Content-Disposition": f'attachment; filename="{record.name}.html"'}
    return Response(
        text, media_type="text/html", headers=headers | {"Content-Security-Policy": policy.of_file(render.SCRIPTS_OF_FILE, render.STYLES)}
    )
