#!/bin/sh
# docker-registry 2.8.2 (Debian 12) answers five things in another way than the specification that it was the model of.
#
# chunks: guessed 416 for a PATCH whose Content-Range does not begin where the upload stands (OCI distribution specification, "Pushing a blob
#   in chunks"). Seen: 202 each time; the bytes are appended in the order in which they arrive, so a client that sends a chunk twice, or
#   leaves one out, finds out at the closing PUT alone.
# ranges: guessed a 416 with a Content-Length of its own body. Seen: the Content-Length of the blob stays in the head of the 416, and fewer
#   bytes follow: a client that reads the body reports a truncated answer, and does not learn why. "bytes=-0" gets 206 with the impossible
#   "bytes 100-99/100" (RFC 9110, section 14.1.2: it cannot be satisfied).
# tags: guessed sorted, one tag with a Link for n=1, and an empty list at the end ("Listing Tags": lexical order; n and last). Seen: an order of
#   its own, all tags whatever n is, and {"tags": null}, on which a client that walks over the list fails.
# sizes: guessed 400 for a manifest whose descriptors say a wrong size, since it has the blob and looks whether it is there. Seen: 201, and the
#   manifest is served as it is. Clients that check sizes, as the image specification asks them to ("Descriptors", size), fail at the pull.
# sha512: guessed 400, or the digest that was asked for. Seen: 201 with Docker-Content-Digest and Location of the sha256; the sha512 can be
#   pulled as well, but a client that compares the header with what it sent takes a good push for a broken one.
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

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = b"{}"


def ask(method, target, body=None, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", 15871, timeout=10)
    connection.request(method, target, body, {name.replace("_", "-"): value for name, value in fields.items()})
    return connection.getresponse()


def session(name):
    return ask("POST", f"/v2/{name}/blobs/uploads/").headers["Location"]


def digest_of(content, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def push(name, content, digest):
    return ask("PUT", f"{session(name)}&digest={digest}", content)


def manifest(size):
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(CONFIG), "size": size}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).encode()


def chunks():
    target = session("library/chunks")
    for content_range, chunk in (("0-3", b"AAAA"), ("8-11", b"CCCC"), ("4-7", b"BBBB"), ("0-3", b"AAAA")):
        answer = ask("PATCH", target, chunk, Content_Range=content_range)
        target = answer.headers["Location"]
        print(f"PATCH Content-Range: {content_range}: {answer.status}, Range: {answer.headers['Range']}")
    whole = digest_of(b"AAAACCCCBBBBAAAA")
    print("PUT with the digest of the bytes as they arrived:", ask("PUT", f"{target}&digest={whole}").status)


def ranges():
    content = b"0123456789" * 10
    push("library/ranges", content, digest_of(content))
    for value in ("bytes=100-", "bytes=5-2", "bytes=-0", "bytes=99-200"):
        answer = ask("GET", f"/v2/library/ranges/blobs/{digest_of(content)}", Range=value)
        try:
            read = f"{len(answer.read())} bytes"
        except http.client.IncompleteRead as error:
            read = f"{len(error.partial)} bytes, and then the end of the connection"
        says = ", ".join(f"{name}: {answer.headers[name]}" for name in ("Content-Range", "Content-Length"))
        print(f"Range: {value}: {answer.status}, {says}, {read}")


def tags():
    push("library/tags", CONFIG, digest_of(CONFIG))
    for tag in ("b", "a", "C", "_x", "10", "9"):
        assert ask("PUT", f"/v2/library/tags/manifests/{tag}", manifest(2), Content_Type=MANIFEST).status == 201
    listed = json.loads(ask("GET", "/v2/library/tags/tags/list").read())["tags"]
    print("sorted:", listed == sorted(listed))
    for n in (1, 0):
        answer = ask("GET", f"/v2/library/tags/tags/list?n={n}")
        print(f"n={n}:", len(json.loads(answer.read())["tags"]), "tags, Link:", answer.headers["Link"])
    print("DELETE of the digest:", ask("DELETE", f"/v2/library/tags/manifests/{digest_of(manifest(2))}").status)
    print(ask("GET", "/v2/library/tags/tags/list").read().decode().strip())


def sizes():
    push("library/sizes", CONFIG, digest_of(CONFIG))
    for size in (2, 999, 0):
        status = ask("PUT", "/v2/library/sizes/manifests/v1", manifest(size), Content_Type=MANIFEST).status
        print(f"config of 2 bytes, described with {size}: {status}")
    served = json.loads(ask("GET", "/v2/library/sizes/manifests/v1", Accept=MANIFEST).read())
    print("served with the size", served["config"]["size"])


def sha512():
    content = b"a blob with two names"
    asked = digest_of(content, "sha512")
    answer = push("library/sha512", content, asked)
    named = answer.headers["Docker-Content-Digest"]
    print(f"PUT with a sha512: {answer.status}, named by it: {named == asked}, by the sha256: {named == digest_of(content)}")
    for digest in (asked, digest_of(content)):
        print(f"GET by {digest[:6]}:", ask("GET", f"/v2/library/sha512/blobs/{digest}").status)


for _ in range(100):
    try:
        ask("GET", "/v2/")
        break
    except OSError:
        time.sleep(0.1)
for case in (chunks, ranges, tags, sizes, sha512):
    print(f"{case.__name__}:")
    case()
PYTHON
python3 try.py | tee seen
diff - seen <<'EXPECTED'
chunks:
PATCH Content-Range: 0-3: 202, Range: 0-3
PATCH Content-Range: 8-11: 202, Range: 0-7
PATCH Content-Range: 4-7: 202, Range: 0-11
PATCH Content-Range: 0-3: 202, Range: 0-15
PUT with the digest of the bytes as they arrived: 201
ranges:
Range: bytes=100-: 416, Content-Range: bytes */100, Content-Length: 100, 33 bytes, and then the end of the connection
Range: bytes=5-2: 416, Content-Range: None, Content-Length: 100, 14 bytes, and then the end of the connection
Range: bytes=-0: 206, Content-Range: bytes 100-99/100, Content-Length: 0, 0 bytes
Range: bytes=99-200: 206, Content-Range: bytes 99-99/100, Content-Length: 1, 1 bytes
tags:
sorted: False
n=1: 6 tags, Link: None
n=0: 6 tags, Link: None
DELETE of the digest: 202
{"name":"library/tags","tags":null}
sizes:
config of 2 bytes, described with 2: 201
config of 2 bytes, described with 999: 201
config of 2 bytes, described with 0: 201
served with the size 0
sha512:
PUT with a sha512: 201, named by it: False, by the sha256: True
GET by sha512: 200
GET by sha256: 200
EXPECTED
echo "as before"
