"""SIGHUP: reads the configuration and the certificates again, while every connection goes on.

What is wrong is logged, and changes nothing. Of the configuration, the keys that are `reloaded`, and all sections,
count at once: one assignment replaces all of them, so that no thread sees half. Others are built into what runs, and
are named in the log.
"""

from __future__ import annotations

import logging
from typing import Any, Callable

from vex.errors import VexError
from vex.http.certificates import Certificates
from vex.settings.config import KEYS, Config, Key
from vex.settings.values import DURATION, FILE

_log = logging.getLogger("vex")


def reload(
    config: Config, reread: Callable[[], Config], limit: Callable[[Config], None], certificates: Certificates
) -> Config:
    """Apply what changed, and log it; returns the configuration that counts from now on."""
    try:
        current, logged = _apply(config, reread(), limit)
    except VexError as error:
        _log.error("the configuration stays as it was: %s", error)
        current, logged = config, True
    if not certificates.reload(current.certificates()) and not logged:
        _log.info("read again: the configuration and the certificates are unchanged")
    return current


def _apply(config: Config, found: Config, limit: Callable[[Config], None]) -> tuple[Config, bool]:
    """Return what counts from now on, and whether anything differs."""
    changed = [key for key in KEYS if getattr(found, key.attribute) != getattr(config, key.attribute)]
    current = config._replace(
        **{key.attribute: getattr(found, key.attribute) for key in changed if _is_reloaded(key, config, found)}
    )
    current = current._replace(sections=found.sections)
    limit(current)
    if found.sections != config.sections:
        _log.info("the sections of the configuration are read again: %s", ", ".join(map(str, found.sections)) or "none")
    for key in changed:
        _tell(key, getattr(config, key.attribute), getattr(found, key.attribute), getattr(current, key.attribute))
    return current, bool(changed) or found.sections != config.sections


def _is_reloaded(key: Key, config: Config, found: Config) -> bool:
    # HTTPS is not turned on or off under those who have the address.
    return key.reloaded and (
        key.kind is not FILE or None not in (getattr(config, key.attribute), getattr(found, key.attribute))
    )


def _tell(key: Key, before: Any, found: Any, current: Any) -> None:
    if current == found:
        _log.info("%s is now %s, and was %s", key.name, _shown(key, current), _shown(key, before))
    else:
        _log.warning(
            "%s is %s in the configuration; it stays %s until vex is restarted",
            key.name,
            _shown(key, found),
            _shown(key, before),
        )


def _shown(key: Key, value: Any) -> str:
    if value is None:
        return "off" if key.name.endswith("-addr") else "nothing"
    if isinstance(value, tuple) and not key.name.endswith("-addr"):
        return ", ".join(map(str, value)) or "nothing"
    return f"{value:g}s" if key.kind is DURATION else str(value)
