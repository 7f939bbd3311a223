#!/bin/sh
# docker-registry 2.8.2 takes chunks that leave a gap or come out of order.
#
# Guessed: 416, as the specification demands of a PATCH whose Content-Range does not begin where the upload stands (OCI distribution
# specification, "Pushing a blob in chunks"). Seen: 202 each time; the bytes are appended in the order in which they arrive, so a client
# that sends a chunk twice, or leaves one out, finds out at the closing PUT alone.
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
target = session("library/chunks")
for content_range, chunk in (("0-3", b"AAAA"), ("8-11", b"CCCC"), ("4-7", b"BBBB"), ("0-3", b"AAAA")):
    answer = ask("PATCH", target, chunk, Content_Range=content_range)
    target = answer.headers['Location']
    print(f"PATCH Content-Range: {content_range}: {answer.status}, Range: {answer.headers['Range']}")
whole = b"AAAACCCCBBBBAAAA"
print("PUT with the digest of the bytes as they arrived:", ask("PUT", f"{target}&digest={digest_of(whole)}").status)
PYTHON
python3 try.py | tee seen
diff - seen <<'EXPECTED'
PATCH Content-Range: 0-3: 202, Range: 0-3
PATCH Content-Range: 8-11: 202, Range: 0-7
PATCH Content-Range: 4-7: 202, Range: 0-11
PATCH Content-Range: 0-3: 202, Range: 0-15
PUT with the digest of the bytes as they arrived: 201
EXPECTED
echo "as before"
