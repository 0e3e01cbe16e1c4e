"""Alerts from the first sign to the last word: raised, judged by rules, told to people, looked after, resolved."""

from noria.monitoring.alerts.causes import Cause, Causes
from noria.monitoring.alerts.desk import Desk, Matcher
from noria.monitoring.alerts.evidence import Showing
from noria.monitoring.alerts.lifecycle import Alerts
from noria.monitoring.alerts.next import what_next
from noria.monitoring.alerts.outbox import Outbox
from noria.monitoring.alerts.rules import Rules
from noria.monitoring.alerts.telling import Telling

__all__ = ["Alerts", "Cause", "Causes", "Desk", "Matcher", "Outbox", "Rules", "Showing", "Telling", "what_next"]
