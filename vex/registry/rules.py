"""What the rules of a repository say of its tags: which go and why, which stay and until when. It decides, and
changes nothing.

The unit is the tag. A tag that no rule names stays, a protected one always, and those under which cosign keeps
signatures go with their image and by nothing else. What only an index lists, or refers to something, is none of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vex.formats.image import EXPIRES_AFTER as LABEL
from vex.registry.policies import Policy
from vex.registry.references import SIGNATURE_TAG
from vex.storage.rules import TagFacts

# The keys of sections that speak of a tag.
PROTECTED, EXPIRE, EXPIRE_AFTER, KEEP_NEWEST = "protected", "expire", "expire-after", "keep-newest"
UNTAGGED = "expire-untagged-after"


class Verdict(NamedTuple):
    """What holds for a tag: whether it goes, and the key that says so, "" where none speaks of it; when it goes if
    nobody pushes or pulls, None for never as things are; its pattern of `expire`, and its place among the newest of
    that, from 1 on, 0 where it has none.
    """

    goes: bool
    key: str
    due: float | None = None
    pattern: str = ""
    place: int = 0


def verdicts(tags: Iterable[TagFacts], policy: Policy, now: float) -> Iterator[tuple[TagFacts, Verdict]]:
    """Judge all tags of a repository, given from the newest to the oldest."""
    places: dict[str, int] = {}
    for tag in tags:
        yield tag, _verdict(tag, policy, now, places)


def _verdict(tag: TagFacts, policy: Policy, now: float, places: dict[str, int]) -> Verdict:
    if policy.protected.covers(tag.name):
        return Verdict(goes=False, key=PROTECTED)
    pattern = "" if SIGNATURE_TAG.fullmatch(tag.name) else policy.expire.pattern_of(tag.name)
    labelled = tag.pushed + tag.lifetime if tag.lifetime is not None and (pattern or policy.expire_label) else None
    if labelled is not None and labelled <= now:
        return Verdict(goes=True, key=LABEL, due=labelled, pattern=pattern)
    if not pattern:
        return Verdict(goes=False, key=LABEL if labelled else "", due=labelled)
    place = places[pattern] = places.get(pattern, 0) + 1
    if policy.keep_newest is not None and place <= policy.keep_newest:
        return Verdict(goes=False, key=KEEP_NEWEST, due=labelled, pattern=pattern, place=place)
    if policy.expire_after is not None:
        due, key = tag.used + policy.expire_after, EXPIRE_AFTER
    elif policy.keep_newest is not None:
        due, key = now, KEEP_NEWEST
    else:
        return Verdict(goes=False, key=LABEL if labelled else EXPIRE, due=labelled, pattern=pattern, place=place)
    if labelled is not None and labelled < due:
        due, key = labelled, LABEL
    return Verdict(goes=due <= now, key=key, due=due, pattern=pattern, place=place)


def says_anything(policy: Policy) -> bool:
    """Tell whether a tag or a manifest of a repository with this policy can go by a rule."""
    return bool(policy.expire or policy.expire_label or policy.expire_untagged_after is not None)


def is_untagged_due(manifest: TagFacts, policy: Policy, now: float) -> bool:
    """Tell whether a manifest that no tag and no index had goes."""
    return policy.expire_untagged_after is not None and manifest.used + policy.expire_untagged_after <= now


def place_of(policy: Policy, key: str, pattern: str = "") -> str:
    """Write the section and the key by which something goes or stays; a label goes by what lets it."""
    setting = ("expire" if pattern else "expire_label") if key == LABEL else key.replace("-", "_")
    return f"{policy.places[setting].partition(',')[0]} {key}"
