"""What refers to a manifest: signatures, SBOMs and other artifacts, by subject or by tag."""

from __future__ import annotations

from vex.api import routes
from vex.names import RepositoryName
from vex.web.browsing import ManifestView
from vex.web.facts import MOST_TYPE, copy_short_digest, shorten, size
from vex.web.links import manifest_url
from vex.web.markup import EMPTY, Markup, Templates, join, local

# What referrers are for people, by the start of their artifact type.
_PURPOSES = (
    ("application/vnd.dev.sigstore.bundle", "Signature or attestation"),
    ("application/vnd.dev.cosign.artifact.sig", "Signature"),
    ("application/vnd.cncf.notary.signature", "Signature"),
    ("application/vnd.in-toto", "Attestation"),
    ("application/spdx", "SBOM"),
    ("text/spdx", "SBOM"),
    ("application/vnd.cyclonedx", "SBOM"),
    ("application/vnd.syft", "SBOM"),
    ("application/sarif", "Scan report"),
)
_SIGNATURE_TAGS = {"sig": "Signature", "att": "Attestation", "sbom": "SBOM"}

_referrers = Templates("referrers.html")


def referrer_table(name: RepositoryName, view: ManifestView) -> Markup:
    """Make the table of what refers to a manifest; nothing when nothing does."""
    rows = [
        _referrers(
            "referrer",
            url=manifest_url(name, row.digest),
            name=purpose(row.artifact_type),
            type=shorten(row.artifact_type, MOST_TYPE),
            digest=copy_short_digest(row.digest),
            size=size(row.size),
        )
        for row in sorted(view.referrers, key=lambda row: row.artifact_type)
    ]
    for tag, digest in view.signature_tags:
        title = _SIGNATURE_TAGS.get(tag.rpartition(".")[2], "Attachment")
        rows.append(
            _referrers(
                "referrer",
                url=manifest_url(name, digest, tag),
                name=title,
                type=f"by the tag …{tag[-5:]}",
                digest=copy_short_digest(digest),
                size=EMPTY,
            )
        )
    if not rows:
        return EMPTY
    rest = local(routes.REFERRERS.path(name=name, digest=view.entry.digest))
    more = _referrers("more", url=rest) if view.more_referrers else EMPTY
    return _referrers("referrers", rows=join(rows), more=more)


def purpose(artifact_type: str) -> str:
    """Say what a referrer is for."""
    return next((text for start, text in _PURPOSES if artifact_type.startswith(start)), "Artifact")
