"""The addresses of the web interface: its table of routes, apart from the pages, which are only loaded once somebody
browses.
"""

from __future__ import annotations

from vex.api.routes import route

FRONT = route("front", "/", GET="", HEAD="")
REPOSITORY = route("repository", "/r/<name>/", GET="", HEAD="")
MANIFEST_PAGE = route("manifest-page", "/r/<name>/m/<manifest>/", GET="", HEAD="")
DOCUMENT = route("document", "/r/<name>/m/<manifest>/json/", GET="", HEAD="")
LAYER = route("layer", "/r/<name>/m/<manifest>/layer/<layer>/", GET="", HEAD="")
ARCHIVE = route("archive", "/r/<name>/m/<manifest>/image.tar", GET="", HEAD="")
HISTORY = route("history", "/r/<name>/history:<tag>/", GET="", HEAD="")
DIFF = route("diff", "/r/<name>/diff/<manifests>/", GET="", HEAD="")
HELP = route("help", "/help/", GET="", HEAD="")
HELP_PAGE = route("help-page", "/help/<subject>/", GET="", HEAD="")
ROBOTS = route("robots", "/robots.txt", GET="", HEAD="")
STATIC = route("static", "/static/<file>", GET="", HEAD="")
# Of the internal listener.
INDEX = route("index", "/", GET="", HEAD="")

# Tried in this order.
PAGES = (FRONT, ROBOTS, STATIC, LAYER, ARCHIVE, DOCUMENT, MANIFEST_PAGE, DIFF, HISTORY, REPOSITORY, HELP, HELP_PAGE)
