"""What happened, in numbers that come from the run: from the traffic's own truth, and from what Noria wrote down."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from demo.story import EMAIL, NEW_SHARE, Story, of_triage
from demo.traffic import Answer, accuracy

IDS = "SELECT databricks_request_id AS id FROM inference WHERE route <> 'shadow'"


def noria(root: Path, *command: str) -> Any:
    """Run a `noria … --json` command on the demo's project and read what it prints."""
    full = [sys.executable, "-m", "noria.cli", "--project", str(root), *command, "--json"]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"noria {' '.join(command)} said:\n{done.stderr}")
    return json.loads(done.stdout)


def summarise(root: Path, story: Story, total_s: float) -> dict[str, Any]:
    """Gather the summary after Noria was stopped: what is counted now is what is on disk."""
    status = story.view.status
    rollout = of_triage(status["rollouts"])[0]
    verdict = next(v for v in status["verdicts"] if v["id"] == rollout["verdict_id"])
    ids = [row["id"] for row in noria(root, "records", "query", IDS)]
    answered = story.traffic.answered | {story.chat.request_id}
    chat = noria(root, "records", "query", "SELECT request, response FROM inference WHERE endpoint = 'assistant'")
    audit = noria(root, "audit", "verify")
    spools = noria(root, "status")["worker"]["spools"].values()
    groups = next(r["numbers"] for r in verdict["results"] if r["gate"] == "groups")
    return {
        "seed": story.seed,
        "stationary_alarms": story.moments.stationary_alarms,
        "drift_alarm": _drift_alarm(story),
        "alarms": [a["summary"] for a in story.alarms],
        "requests": story.traffic.sent + 1,
        "answered_requests": len(answered),
        "retried_requests": story.traffic.retried,
        "failed_requests": sum(story.traffic.failures.values()),
        "failures": dict(story.traffic.failures),
        "records_in_table": len(ids),
        "missing": len(answered - set(ids)),
        "spool_left": sum(s["unshipped"] for s in spools),
        "duplicates": len(ids) - len(set(ids)),
        "accuracy": _accuracies(story, rollout["version"]),
        "versions": {"first": story.traffic.answers[0].version, "promoted": f"triage/{rollout['version']}"},
        "verdict_id": verdict["id"],
        "canary": {
            "steps": [(c["stage"], c["weight"], c["reason"]) for c in rollout["history"]],
            "log_e": rollout["log_e"],
            "log_threshold": rollout["log_threshold"],
        },
        "fairness": {
            "group_gap_before": groups["champion_gap"],
            "group_gap_after": groups["candidate_gap"],
            "groups": _by_group(groups),
        },
        "cards": [str(p.relative_to(root)) for p in sorted((root / ".noria/mlartifacts").rglob("card/README.md"))],
        "llm": {
            "model": story.chat.model,
            "tokens": story.chat.tokens,
            "ttft_ms": story.chat.ttft_ms,
            "recorded": len(chat),
            "redacted": bool(chat) and EMAIL not in json.dumps(chat) and "[email]" in chat[0]["request"],
        },
        "audit": {"events": audit["events"], "verified": audit["verified"]},
        "seconds": {
            "install": _install_seconds(root),
            "total": round(total_s, 1),
            "alert_to_promoted": round(story.moments.promoted_at - story.moments.alarm_at, 1),
            "train": _train_seconds(of_triage(status["runs"])[0]),
        },
    }


def _by_group(numbers: dict[str, float]) -> dict[str, dict[str, float]]:
    """Held-out rows of each group, and the accuracy of the old and the new version on them."""
    names = [name.removeprefix("rows:") for name in numbers if name.startswith("rows:")]
    return {
        name: {
            "rows": numbers[f"rows:{name}"],
            "before": round(numbers[f"champion:{name}"], 3),
            "after": round(numbers[f"candidate:{name}"], 3),
        }
        for name in names
    }


def _drift_alarm(story: Story) -> dict[str, Any]:
    """The first alarm of a drift monitor; the quality monitor sees the change, too, but only where labels come."""
    alarm = next(a for a in story.alarms[story.moments.stationary_alarms :] if a["monitor"] != "quality")
    m = story.moments
    return {
        "monitor": alarm["monitor"],
        "e_value": math.exp(min(alarm["log_e"], 700)),
        "records_after_change": sum(m.changed_at <= a.at <= m.alarm_at for a in story.traffic.answers),
    }


def _accuracies(story: Story, promoted: str) -> dict[str, float | None]:
    """Accuracy by the traffic's own labels; after the promotion on messages that no version has seen."""
    first = story.traffic.answers[0].version

    def over(test: Callable[[Answer], bool]) -> float | None:
        return accuracy([a for a in story.traffic.answers if test(a)])

    def after(a: Answer) -> bool:
        return a.version == f"triage/{promoted}" and a.unseen

    return {
        "before": over(lambda a: a.at < story.moments.changed_at),
        "during": over(lambda a: a.version == first and a.share_new == NEW_SHARE),
        "during_new": over(lambda a: a.version == first and a.message.is_new),
        "after": over(after),
        "after_new": over(lambda a: after(a) and a.message.is_new),
        "after_old": over(lambda a: after(a) and not a.message.is_new),
    }


def _install_seconds(root: Path) -> float | None:
    note = root / ".venv" / ".install-seconds"
    return float(note.read_text()) if note.exists() else None


def _train_seconds(run: dict[str, Any]) -> float:
    return round(float(next(s["seconds"] for s in run["steps"] if s["name"] == "train")), 1)


def checks(summary: dict[str, Any]) -> dict[str, bool]:
    """What the story promises; each can fail."""
    right = summary["accuracy"]
    return {
        "no alarm while nothing changed": summary["stationary_alarms"] == 0,
        "no failed request": summary["failed_requests"] == 0,
        "every answered request is in the table": summary["missing"] == 0,
        "no record twice, none left behind": summary["duplicates"] == 0 and summary["spool_left"] == 0,
        "accuracy on the new world rose": (right["after_new"] or 0) > (right["during_new"] or 1) + 0.1,
        "nothing lost on the old world": (right["after_old"] or 0) > (right["before"] or 1) - 0.05,
        "chat recorded and redacted": summary["llm"]["recorded"] == 1 and summary["llm"]["redacted"],
        "audit chain holds": summary["audit"]["verified"],
        "a card for every version": len(summary["cards"]) == 3,
    }


def show(summary: dict[str, Any], path: Path, console: Console) -> int:
    """Print one screen, write the JSON, and say by the exit status whether the story held."""
    held = checks(summary)
    path.write_text(json.dumps(summary | {"checks": held}, indent=2))
    right, alarm, seconds = summary["accuracy"], summary["drift_alarm"], summary["seconds"]
    table = Table.grid(padding=(0, 2))
    rows = {
        "quiet": f"{summary['stationary_alarms']} alarms; accuracy {right['before']:.1%}",
        "alarm": f"{alarm['monitor']} after {alarm['records_after_change']} messages, e = {alarm['e_value']:.3g}",
        "new world": f"accuracy {right['during_new']:.1%} → {right['after_new']:.1%} "
        f"(mix {right['during']:.1%} → {right['after']:.1%})",
        "old world": f"accuracy {right['before']:.1%} → {right['after_old']:.1%}",
        "groups": "largest accuracy gap {group_gap_before:.2f} → {group_gap_after:.2f}".format(**summary["fairness"]),
        "versions": "{first} → {promoted}, verdict ".format(**summary["versions"]) + summary["verdict_id"],
        "log": f"{summary['records_in_table']:,} records of {summary['requests']:,} requests, "
        f"{summary['missing']} missing, {summary['duplicates']} twice, {summary['failed_requests']} requests failed",
        "chat": "{model}: {tokens} tokens, first after {ttft_ms} ms".format(**summary["llm"]),
        "audit": f"{summary['audit']['events']} events, verified: {summary['audit']['verified']}",
        "seconds": f"{seconds['total']} in all, {seconds['alert_to_promoted']} from alarm to promotion, "
        f"{seconds['train']} of training",
    }
    for name, what in rows.items():
        table.add_row(f"[bold]{name}", what)
    for number, (name, group) in enumerate(summary["fairness"]["groups"].items()):
        change = f"{name:<18}{group['rows']:>5.0f} rows  {group['before']:.0%} → {group['after']:.0%}"
        table.add_row("" if number else "[bold]by group", change)
    table.add_row("[bold]cards", f"{len(summary['cards'])} written; noria card show triage")
    for name, ok in held.items():
        table.add_row("[green]held" if ok else "[bold red]BROKEN", name)
    console.print(Panel(table, title="the wheel turned", border_style="green"))
    console.print("Where to look:")
    console.print(f"  {sys.prefix}/bin/noria up           opens the same project, with its console", soft_wrap=True)
    console.print(f"  {path}   these numbers; story.txt and noria.log lie beside", soft_wrap=True)
    console.print(f"  {sys.prefix}/bin/noria audit show   who changed what, and why", soft_wrap=True)
    return 0 if all(held.values()) else 1
