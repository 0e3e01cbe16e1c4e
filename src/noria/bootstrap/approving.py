"""Tells people of approvals: the release room knows what waits for whom, the alerts' room reaches them."""

from typing import TYPE_CHECKING

from noria.domain.alert import Severity

if TYPE_CHECKING:
    from noria.monitoring.alerts import Alerts
    from noria.release.approvals import Approvals

APPROVAL = "approval"
"""Monitor of the alerts: `approval:VERDICT` while one waits, `approval` if nobody decided about the newest verdict."""


def tell_of_approvals(approvals: "Approvals", alerts: "Alerts") -> None:
    """End what can't be decided any more, raise an alert for all that waits, and resolve those that are decided.

    May be repeated, and after a death takes up what was left: everything is told from how things stand.
    """
    found = approvals.turn()
    for each in found:
        approval, monitor = each.approval, f"{APPROVAL}:{each.approval.id}"
        if each.summary:
            alerts.raise_system(approval.endpoint, monitor, each.summary, Severity.WARNING)
        else:
            alerts.resolve_system(approval.endpoint, monitor, f"{approval.ending}.")
    for endpoint in {each.approval.endpoint for each in found}:
        if summary := approvals.lapsed(endpoint):
            alerts.raise_system(endpoint, APPROVAL, summary, Severity.WARNING)
        else:
            alerts.resolve_system(endpoint, APPROVAL, "another verdict has taken its place.")
