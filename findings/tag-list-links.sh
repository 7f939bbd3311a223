#!/bin/sh
# skopeo 1.9.3, oras 0.2.43 and python-dxf 12.1.1 resolve a relative Link of a list of tags against something else than its address.
#
# Guessed: like any reference (RFC 8288 section 3.2, RFC 3986 section 5; the OCI distribution specification, "Listing Tags", asks for RFC 5988),
# against the address of the list that gave it. Seen: all three follow those with the whole path; of "?n=2&last=b" and "list?n=2&last=b" oras and
# skopeo take the former from the root, oras the latter too, where skopeo glues it to the host and finds it an invalid port; dxf takes both from
# the repository. For dxf such a registry has one page of tags, and for the others none.
set -eu
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid"; rm -rf "$work"' EXIT
cd "$work"
apt-get download -q skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+b1 libdevmapper1.02.1=2:1.02.185-2 golang-github-containers-common=0.50.1+ds1-4 golang-github-containers-image=5.23.1-4 >apt.log 2>&1 || { cat apt.log; exit 1; }
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$work/usr/lib/x86_64-linux-gnu:$work/lib/x86_64-linux-gnu"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check oras==0.2.43 python-dxf==12.1.1
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >policy.json
cat >registry.py <<'PYTHON'
import http.server, json

LINKS = {
    "absolute": "http://127.0.0.1:15872/v2/absolute/tags/list?n=2&last=b",
    "path": "/v2/path/tags/list?n=2&last=b",
    "segment": "list?n=2&last=b",
    "query": "?n=2&last=b",
}


class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("asked", "a") as file:
            file.write(self.path + "\n")
        path, _, query = self.path.partition("?")
        name = path.split("/")[2] if path.count("/") > 2 else ""
        found = path == "/v2/" or path == f"/v2/{name}/tags/list" and name in LINKS
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        if found and name and not query:
            self.send_header("Link", f'<{LINKS[name]}>; rel="next"')
        self.end_headers()
        self.wfile.write(json.dumps({"name": name, "tags": ["c", "d"] if query else ["a", "b"]}).encode())

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 15872), Registry).serve_forever()
PYTHON
cat >with_oras.py <<'PYTHON'
import sys

import oras.client

print(oras.client.OrasClient(insecure=True, hostname="127.0.0.1:15872").get_tags(f"127.0.0.1:15872/{sys.argv[1]}"))
PYTHON
python3 registry.py &
pid=$!
until python3 -c 'import socket; socket.create_connection(("127.0.0.1", 15872))' 2>/dev/null; do sleep 0.1; done
usr/bin/skopeo --version
export DXF_HOST=127.0.0.1:15872 DXF_INSECURE=1
tried() {
    : >asked
    list=$("$@" 2>error | grep -o '\b[abcd]\b' | tr '\n' ' ' || true)
    strange=$(grep -v -e '^/v2/$' -e '^/v2/[a-z]*/tags/list' asked | head -n 1 || true)
    reason=$(grep -o 'invalid port' error | head -n 1 || true)
    echo "tags: ${list:-none} ${strange:+asked for: $strange}$reason"
}
for link in absolute path segment query; do
    echo "$link: skopeo: $(tried usr/bin/skopeo --policy policy.json list-tags --tls-verify=false docker://127.0.0.1:15872/$link)"
    echo "$link: oras: $(tried venv/bin/python with_oras.py $link)"
    echo "$link: dxf: $(tried venv/bin/dxf list-aliases $link)"
done | sed 's/  */ /g; s/ $//' | tee seen
diff - seen <<'EXPECTED'
absolute: skopeo: tags: a b c d
absolute: oras: tags: a b c d
absolute: dxf: tags: a b c d
path: skopeo: tags: a b c d
path: oras: tags: a b c d
path: dxf: tags: a b c d
segment: skopeo: tags: none invalid port
segment: oras: tags: none asked for: /list?n=2&last=b
segment: dxf: tags: a b asked for: /v2/segment/list?n=2&last=b
query: skopeo: tags: none asked for: /?n=2&last=b
query: oras: tags: none asked for: /?n=2&last=b
query: dxf: tags: a b asked for: /v2/query/?n=2&last=b
EXPECTED
echo "as before"
