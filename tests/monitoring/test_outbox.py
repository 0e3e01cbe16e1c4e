"""Who is told of what, how often, and what becomes of it when receivers, silences and processes come and go."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fakes.notifier import Dies, FakeNotifier
from fakes.outbox import at_once, outbox, showing
from fakes.records import MemoryRecords
from fakes.state import FakeState
from fakes.traffic import BEGIN, HOUR, Clock
from noria.domain.alert import Alert, AlertState, Severity
from noria.domain.delivery import Delivery, Outgoing
from noria.monitoring.alerts import Alerts, Causes, Desk, Matcher, Telling
from noria.monitoring.alerts.ledger import delivery_id
from noria.ports import NOTIFIER, Recipient

WAIT = timedelta(seconds=10)


class House:
    """Alerts with their outbox, a desk and receivers, on a clock that a test moves."""

    def __init__(self, *recipients):
        self.clock = Clock(BEGIN + 5 * HOUR)
        self.state = FakeState(self.clock)
        self.recipients = recipients
        self.start()

    def start(self):
        """A process begins, perhaps anew: all that it knows is in the state."""
        self.outbox = outbox(self.state, self.clock, *self.recipients)
        causes = Causes(self.state, self.clock, lambda _: (), showing(MemoryRecords()), lambda _: {})
        self.alerts = Alerts(self.state, self.clock, causes, self.outbox)
        self.desk = Desk(self.state, self.clock, self.outbox)

    def turn(self, **later):
        self.clock.at += timedelta(**later)
        self.outbox.turn(at_once)

    def delivery(self, alert, notifier):
        return self.state.get(Delivery, delivery_id(alert, notifier.name))

    @property
    def open(self):
        return (self.state.get(Outgoing, "outgoing") or Outgoing()).open


@pytest.fixture
def slack():
    return FakeNotifier("slack")


@pytest.fixture
def house(slack):
    return House(slack)


def told(notifier):
    return [(alert.id, alert.state.value) for alert in notifier.told]


def test_what_fires_is_told_once_and_so_is_its_end(house, slack):
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn()
    assert told(slack) == []  # others of the group may follow
    for _ in range(3):
        house.turn(seconds=10)
    house.alerts.resolve_system("triage", "spool", "There is space again.")
    house.turn(seconds=10)
    house.turn(hours=1)
    assert told(slack) == [("triage:spool", "firing"), ("triage:spool", "resolved")]
    assert house.open == ()
    assert house.delivery("triage:spool", slack).times == 2


def test_what_fires_within_the_group_wait_is_told_together_and_by_endpoint(house, slack):
    house.alerts.raise_system("triage", "spool", "One.")
    house.clock.at += timedelta(seconds=4)
    house.alerts.raise_system("triage", "registry", "Two.")
    house.alerts.raise_system("assistant", "registry", "Three.")
    house.turn(seconds=6)
    assert [[a.id for a in n.alerts] for n in slack.notices] == [["triage:spool", "triage:registry"]]
    house.turn(seconds=10)
    assert [[a.id for a in n.alerts] for n in slack.notices[1:]] == [["assistant:registry"]]


def test_a_receiver_that_is_down_is_tried_again_with_growing_pauses_and_shown(house, slack):
    slack.failures = 3
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    first = house.delivery("triage:spool", slack)
    assert (first.attempts, first.last_error) == (1, "slack could not be told of triage:spool. Try again.")
    status = house.outbox.status()["slack"]
    assert (status.waiting, status.failed, status.failing_since) == (1, 1, house.clock.at)
    house.turn(seconds=4)
    assert house.delivery("triage:spool", slack).attempts == 1
    house.turn(seconds=1)
    assert house.delivery("triage:spool", slack).attempts == 2
    house.turn(seconds=5)
    assert house.delivery("triage:spool", slack).attempts == 2
    house.turn(seconds=5)
    house.turn(seconds=20)
    assert told(slack) == [("triage:spool", "firing")]
    done = house.outbox.status()["slack"]
    assert (done.waiting, done.failing_since, done.delivered, done.failed) == (0, None, 1, 3)


def test_one_receiver_that_is_down_holds_up_no_other(house, slack):
    deaf = FakeNotifier("deaf", failures=100)
    house.recipients = (deaf, slack)
    house.start()
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    assert told(slack) == [("triage:spool", "firing")]
    assert house.outbox.status()["deaf"].waiting == 1


def test_a_receiver_that_was_down_hears_of_the_end_alone(house, slack):
    slack.failures = 1
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    failing_since = house.clock.at
    house.alerts.resolve_system("triage", "spool", "There is space again.")
    assert house.outbox.status()["slack"].failing_since == failing_since
    house.turn(seconds=10)
    assert told(slack) == [("triage:spool", "resolved")]


def test_a_process_that_dies_between_sending_and_noting_sends_the_same_notice_again(house, slack):
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.alerts.raise_system("triage", "registry", "Somebody moved the alias.")
    house.clock.at += WAIT
    with slack.dying(), pytest.raises(Dies):
        house.outbox.turn(at_once)
    house.start()
    house.alerts.raise_system("triage", "late", "It came later, so it is another notice.")
    house.turn(seconds=5)
    first, again = slack.notices
    assert first == again
    house.turn(seconds=5)
    assert slack.notices[2].id != first.id
    house.turn(hours=1)
    assert len(slack.notices) == 3


def test_a_process_that_dies_before_it_sends_sends_later(house, slack):
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.clock.at += WAIT
    house.outbox.turn(lambda task: None)  # claimed, and then the machine lost its power
    house.start()
    house.turn(seconds=5)
    assert told(slack) == [("triage:spool", "firing")]


def test_an_alert_that_ends_while_it_is_being_told_is_told_to_be_over(house, slack):
    tasks = []
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.clock.at += WAIT
    house.outbox.turn(tasks.append)
    house.alerts.resolve_system("triage", "spool", "There is space again.")
    tasks[0]()
    house.turn(seconds=10)
    assert told(slack) == [("triage:spool", "firing"), ("triage:spool", "resolved")]


def test_a_notifier_that_is_still_telling_is_not_asked_again(house, slack):
    tasks = []
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.clock.at += WAIT
    for _ in range(3):
        house.outbox.turn(tasks.append)
        house.clock.at += HOUR
    assert len(tasks) == 1


def test_a_silenced_alert_is_not_sent_until_the_silence_is_over(house, slack):
    silence = house.desk.silence(Matcher(endpoint="tri*"), house.clock.at + HOUR, "ada", "planned work")
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(minutes=30)
    assert told(slack) == []
    assert house.state.get(Alert, "triage:spool").state is AlertState.FIRING
    house.turn(minutes=31)
    assert told(slack) == [("triage:spool", "firing")]
    assert [e.action for e in house.state.audit_trail()] == ["alerts.silenced", "alert.raised"]
    assert silence.by == "ada"


def test_what_is_silenced_while_its_receiver_is_down_is_no_failure_any_more(house, slack):
    slack.failures = 1
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    house.desk.silence(Matcher(monitor="spool"), house.clock.at + HOUR, "ada", "planned work")
    house.turn(minutes=1)
    assert house.outbox.status()["slack"].failing_since is None
    house.turn(minutes=60)
    assert told(slack) == [("triage:spool", "firing")]


def test_what_was_over_before_the_silence_was_is_not_sent_at_all(house, slack):
    house.desk.silence(Matcher(monitor="spool"), house.clock.at + HOUR, "ada", "planned work")
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(minutes=1)
    house.alerts.resolve_system("triage", "spool", "There is space again.")
    house.turn(minutes=1)
    house.turn(hours=2)
    assert told(slack) == []
    assert "over before silence" in house.delivery("triage:spool", slack).closed


def test_the_end_of_what_was_told_before_the_silence_waits_for_its_end(house, slack):
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    silence = house.desk.silence(Matcher(severity="critical"), house.clock.at + HOUR, "ada", "enough")
    house.alerts.resolve_system("triage", "spool", "There is space again.")
    house.turn(minutes=10)
    assert told(slack) == [("triage:spool", "firing")]
    house.desk.lift(silence.id, "ada", "done")
    house.turn(seconds=1)
    assert told(slack)[1:] == [("triage:spool", "resolved")]


def test_recipients_are_told_of_what_they_asked_for(house):
    grave, other = FakeNotifier("grave"), FakeNotifier("other")
    house.recipients = (
        Recipient(notifier=grave, severity=Severity.CRITICAL),
        Recipient(notifier=other, endpoints=("assistant",)),
    )
    house.start()
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    assert (len(grave.told), len(other.told)) == (1, 0)


def test_a_notifier_that_is_deaf_for_long_is_an_alert_to_the_others_until_it_delivers_again(house, slack):
    pager = FakeNotifier("pager")
    house.recipients, slack.failures = (slack, pager), 8
    house.start()
    telling = Telling(house.outbox, house.alerts)
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    assert telling.turn(at_once) == []
    for _ in range(12):
        house.clock.at += timedelta(minutes=1)
        problems = telling.turn(at_once)
    assert problems == ["slack: slack could not be told of triage:spool. Try again."]
    house.turn(minutes=1)
    assert told(pager)[1:] == [(":notifier slack", "firing")]
    assert len([e for e in house.state.audit_trail() if e.subject == ":notifier slack"]) == 1
    slack.failures = 0
    for _ in range(3):
        house.clock.at += timedelta(minutes=10)
        problems = telling.turn(at_once)
    assert problems == []
    assert told(pager)[2:] == [(":notifier slack", "resolved")]
    assert told(slack) == [("triage:spool", "firing")]


def test_what_was_wrong_with_a_notifier_is_over_when_the_project_drops_it(house, slack):
    house.alerts.raise_system("", f"{NOTIFIER}gone", "gone has told nobody.")
    Telling(house.outbox, house.alerts).turn(at_once)
    assert house.state.get(Alert, ":notifier gone").resolution == "the project names no notifier gone any more."


def test_an_alert_about_a_notifier_is_told_to_the_others(house, slack):
    pager = FakeNotifier("pager")
    house.recipients = (slack, pager)
    house.start()
    house.alerts.raise_system("", f"{NOTIFIER}slack", "slack has told nobody for long.")
    house.turn(seconds=10)
    assert (len(slack.told), len(pager.told)) == (0, 1)


def test_what_still_fires_is_told_again_unless_somebody_looks_after_it(house):
    people, machine = FakeNotifier("people"), FakeNotifier("machine")
    house.recipients = (
        Recipient(notifier=people, repeat=HOUR),
        Recipient(notifier=machine, repeat=timedelta(minutes=1), always=True),
    )
    house.start()
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    ids = [machine.notices[0].id]
    for _ in range(2):
        house.clock.at += HOUR
        house.outbox.remind()
        house.turn()
        ids.append(machine.notices[-1].id)
    assert (len(people.told), len(machine.told)) == (3, 3)
    assert len(set(ids)) == 3  # a reminder is no repeat
    house.desk.acknowledge("triage:spool", "ada", "on it")
    house.clock.at += HOUR
    house.outbox.remind()
    house.turn()
    assert (len(people.told), len(machine.told)) == (3, 4)


def test_a_notifier_that_the_project_no_longer_names_is_owed_nothing(house, slack):
    slack.failures = 100
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    house.recipients = ()
    house.start()
    house.turn()
    assert house.open == ()
    assert "no such notifier" in house.delivery("triage:spool", slack).closed


def test_a_receiver_that_is_deaf_for_a_week_is_given_up_and_it_says_so(house, slack):
    slack.failures = 10_000
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    for _ in range(8):
        house.turn(days=1)
    house.turn(minutes=10)
    assert house.delivery("triage:spool", slack).closed.startswith("given up: slack could not be told")
    assert house.open == ()


def test_whatever_a_notifier_raises_is_a_failure_of_its_own(house, slack):
    def stumble(_notice):
        raise ZeroDivisionError

    slack.notify = stumble
    house.alerts.raise_system("triage", "spool", "The disk is full.")
    house.turn(seconds=10)
    assert house.delivery("triage:spool", slack).last_error == "ZeroDivisionError"


def test_an_alert_that_was_stored_by_an_earlier_version_is_still_read_and_its_end_told(house, slack):
    from noria.adapters.codec import decode

    text = (
        '{"id":"triage:text:1","endpoint":"triage","monitor":"text","state":"firing",'
        '"raised_at":"2026-03-02T09:00:00Z","since":"2026-03-02T08:00:00Z","summary":"It has changed.","log_e":9.42,'
        '"rows":1240,"moved":[],"resolved_at":null,"resolution":""}'
    )
    old = decode(Alert, text)
    assert (old.fires, old.asks_for_run, old.severity, old.how_sure) == (
        True, True, Severity.WARNING, "evidence 12,333 to 1",
    )  # fmt: skip
    with house.state.note() as note:
        note.put(replace(old, id="triage:spool", monitor="spool", log_e=0.0))
    house.turn(hours=1)
    assert told(slack) == []
    house.alerts.resolve_system("triage", "spool", "There is space again.")
    house.turn(seconds=10)
    assert told(slack) == [("triage:spool", "resolved")]
