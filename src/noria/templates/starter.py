"""Customer messages to start with: written by a program, the same every time, to be replaced by real ones.

They show the columns and let a first model be trained. What a model scores on them says nothing about real messages.
"""

import csv
import io
import random
from dataclasses import dataclass

ROWS = 600
"""Messages in the starter file."""
DISSENT = 0.05
"""Share of the labels on which another reader disagreed: people who label do."""
_HEADER = ("text", "label", "group")


@dataclass(frozen=True, slots=True)
class Message:
    """One labelled message; `group` is the product that it is about."""

    text: str
    label: str
    group: str


_OPENERS = {
    "negative": ["", "", "Honestly, ", "Hello? ", "Once again: ", "I'm done. ", "Not again, ", "Seriously, ", "Ugh, "],
    "neutral": ["", "", "Hi, ", "Hello, ", "Quick question: ", "Just asking: ", "Good morning, ", "For my records: "],
    "positive": ["", "", "Wow, ", "Hi team, ", "Just to say: ", "Great news, ", "Finally, ", "Hey, "],
}
_CLOSERS = {
    "negative": ["", "", " Please fix this.", " I want my money back.", " Nobody answers me.", " It's the {nth} time.",
                 " I'm cancelling on {day}.", " Very disappointed."],
    "neutral": ["", "", " Thanks.", " I'll be back on {day}.", " My reference is {number}.", " No hurry.",
                " Please let me know by {day}."],
    "positive": ["", "", " Thank you!", " Keep it up.", " Made my {day}.", " My compliments to {name}.",
                 " I'll tell my friends."],
}  # fmt: skip
_BODIES = {
    ("delivery", "negative"): [
        "my parcel {number} is late again and the tracking says nothing.",
        "the courier left order {number} in the rain and it is soaked.",
        "I waited all {day} for a delivery that never came.",
        "half of order {number} is missing and the box was torn.",
        "the driver was rude and threw the parcel over the fence.",
    ],
    ("delivery", "neutral"): [
        "where do I change the address for order {number}?",
        "does the courier come before noon on {day}?",
        "can {name} collect parcel {number} for me?",
        "do you deliver to the islands?",
        "is order {number} still planned for {day}, or is it late?",
    ],
    ("delivery", "positive"): [
        "parcel {number} came a day early and everything was in it.",
        "the driver carried the heavy box up to the third floor, so kind.",
        "ordered on {day}, here the next morning, love it.",
        "lost parcel {number} was found and replaced within an hour.",
        "lovely packaging and not a scratch.",
    ],
    ("app", "negative"): [
        "the app crashes every time I open order {number}.",
        "since {day} I can't log in and the reset mail never arrives.",
        "the new version is slow and drains my battery.",
        "it lost my basket again, what a mess.",
        "your update deleted my saved addresses.",
    ],
    ("app", "neutral"): [
        "how do I switch the app to dark mode?",
        "which version do I need for the {day} offers?",
        "where do I find the invoice for order {number} in the app?",
        "does the app work without a connection?",
        "can I have two accounts on one phone?",
    ],
    ("app", "positive"): [
        "the new app is so much faster, well done.",
        "logging in with a fingerprint is brilliant.",
        "{name} from support fixed my login in two minutes.",
        "I love the new search, found it at once.",
        "best update in years, everything just works.",
    ],
    ("billing", "negative"): [
        "I was charged twice for order {number} and nobody cares.",
        "the refund promised on {day} still isn't there.",
        "you raised the price without telling me, shame on you.",
        "invoice {number} is wrong for the {nth} time.",
        "hidden fees again, this is a rip-off.",
    ],
    ("billing", "neutral"): [
        "can I pay invoice {number} by bank transfer?",
        "please send a copy of invoice {number}.",
        "on which day is the monthly fee charged?",
        "how do I change the name on the invoice to {name}?",
        "when will the refund for order {number} be booked?",
    ],
    ("billing", "positive"): [
        "the refund for {number} arrived the same day, impressed.",
        "{name} explained my invoice so patiently, thank you.",
        "fair price and no surprises, I'm happy.",
        "thanks for the discount on order {number}, very generous.",
        "so easy to cancel and to come back, great service.",
    ],
    ("store", "negative"): [
        "I stood in the queue for an hour and then you closed.",
        "the staff ignored me completely on {day}.",
        "the shelf was empty and the offer a lie.",
        "returned item {number} and was treated like a thief.",
        "dirty, loud and nobody at the desk.",
    ],
    ("store", "neutral"): [
        "are you open on {day} evening?",
        "can I return order {number} in the store?",
        "do you have the blue one in size {size}?",
        "is there parking near the station store?",
        "does {name} still work at the service desk?",
    ],
    ("store", "positive"): [
        "{name} at the desk was wonderful and found what I needed.",
        "such a friendly store, I come back every {day}.",
        "returned item {number} without any fuss, excellent.",
        "the workshop on {day} was great fun for the kids.",
        "clean, bright and helpful people everywhere.",
    ],
}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NAMES = ("Amina", "Bruno", "Chen", "Dana", "Elif", "Femi", "Greta", "Hugo", "Ines", "Jonas")
_NTH = ("second", "third", "fourth", "fifth")


def messages(rows: int = ROWS, seed: int = 0) -> list[Message]:
    """So many different messages, every product and mood alike often; the same seed gives the same messages."""
    chance = random.Random(seed)  # noqa: S311  (example sentences, no secret)
    kinds = list(_BODIES)
    found: dict[str, Message] = {}
    while len(found) < rows:
        group, mood = kinds[len(found) % len(kinds)]
        text = "".join(chance.choice(part) for part in (_OPENERS[mood], _BODIES[group, mood], _CLOSERS[mood]))
        text = text.format(
            day=chance.choice(_DAYS),
            name=chance.choice(_NAMES),
            nth=chance.choice(_NTH),
            number=chance.randrange(10_000, 99_999),
            size=chance.randrange(36, 48),
        )
        text = text[0].upper() + text[1:]
        if chance.random() < DISSENT:
            mood = chance.choice(sorted(set(_OPENERS) - {mood}))
        found.setdefault(text, Message(text, mood, group))
    shuffled = list(found.values())
    chance.shuffle(shuffled)
    return shuffled


def messages_csv(rows: int = ROWS, seed: int = 0) -> str:
    """The messages as CSV with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows((m.text, m.label, m.group) for m in messages(rows, seed))
    return out.getvalue()
