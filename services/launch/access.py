"""What the service account must be allowed, asked of the API server at start: a missing verb is named then, not found out at night."""

from api.errors import ClusterUnavailable
from services.launch.api_server import ApiServer

NEEDED = {
    ("batch.volcano.sh", "jobs"): ("create", "get", "list", "delete", "patch"),
    ("batch.volcano.sh", "jobs/status"): ("update",),
    ("", "pods"): ("list", "delete"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list",),
}


def check_access(server: ApiServer, namespace: str) -> None:
    """Raises ClusterUnavailable that names what is missing."""
    missing = [
        f"{verb} {resource}{'.' + group if group else ''}"
        for (group, resource), verbs in NEEDED.items()
        for verb in verbs
        if not server.may(verb, group, resource)
    ]
    if missing:
        raise ClusterUnavailable(f"In namespace {namespace} this service may not {', '.join(missing)}; give its Role these verbs.")
