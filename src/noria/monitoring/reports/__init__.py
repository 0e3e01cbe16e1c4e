"""Reports on models: what monitors, alerts and the log say of a span of time, as facts, as a page and as a picture."""

from noria.monitoring.reports.facts import Reporter

__all__ = ["Reporter"]
