#!/bin/sh
# docker-registry 2.8.2 lists tags unsorted, takes no notice of n, and says null where the last tag has gone.
#
# Guessed: sorted, one tag with a Link for n=1, and an empty list at the end (OCI distribution specification, "Listing Tags": lexical
# order; n and last). Seen: an order of its own, all tags whatever n is, and {"tags": null}, on which a client that walks over the list fails.
set -eu
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid"; rm -rf "$work"' EXIT
cd "$work"
apt-get download -q docker-registry=2.8.2+ds1-1 >apt.log 2>&1 || { cat apt.log; exit 1; }
dpkg -x docker-registry_*.deb .
cat >config.yml <<'YAML'
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: data}, delete: {enabled: true}}
http: {addr: "127.0.0.1:15871"}
YAML
usr/bin/docker-registry --version
usr/bin/docker-registry serve config.yml >registry.log 2>&1 &
pid=$!
cat >try.py <<'PYTHON'
import hashlib, http.client, json, time

def ask(method, target, body=None, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", 15871, timeout=10)
    connection.request(method, target, body, {name.replace("_", "-"): value for name, value in fields.items()})
    return connection.getresponse()

def session(name):
    return ask("POST", f"/v2/{name}/blobs/uploads/").headers['Location']

def digest_of(content, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"

for _ in range(100):
    try:
        ask("GET", "/v2/")
        break
    except OSError:
        time.sleep(0.1)
config = b"{}"
def push(name):
    ask("PUT", f"{session(name)}&digest={digest_of(config)}", config)
def manifest(size=len(config)):
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config), "size": size}
    return json.dumps({"schemaVersion": 2, "mediaType": TYPE, "config": described, "layers": []}).encode()
TYPE = "application/vnd.oci.image.manifest.v1+json"
push("library/tags")
for tag in ("b", "a", "C", "_x", "10", "9"):
    assert ask("PUT", f"/v2/library/tags/manifests/{tag}", manifest(), Content_Type=TYPE).status == 201
tags = json.loads(ask("GET", "/v2/library/tags/tags/list").read())["tags"]
print("sorted:", tags == sorted(tags))
for n in (1, 0):
    answer = ask("GET", f"/v2/library/tags/tags/list?n={n}")
    print(f"n={n}:", len(json.loads(answer.read())["tags"]), "tags, Link:", answer.headers['Link'])
print("DELETE of the digest:", ask("DELETE", f"/v2/library/tags/manifests/{digest_of(manifest())}").status)
print(ask("GET", "/v2/library/tags/tags/list").read().decode().strip())
PYTHON
python3 try.py | tee seen
diff - seen <<'EXPECTED'
sorted: False
n=1: 6 tags, Link: None
n=0: 6 tags, Link: None
DELETE of the digest: 202
{"name":"library/tags","tags":null}
EXPECTED
echo "as before"
