#!/bin/sh
# docker-registry 2.8.2 answers a range that cannot be satisfied with a body that is shorter than its Content-Length.
#
# Guessed: a 416 with a Content-Length of its own body. Seen: the Content-Length of the blob stays in the head of the 416, and fewer bytes
# follow: a client that reads the body waits, or reports a truncated answer, and does not learn why. "bytes=-0" gets 206 with the
# impossible "bytes 100-99/100" (RFC 9110, section 14.1.2: it cannot be satisfied).
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
content = b"0123456789" * 10
ask("PUT", f"{session('library/ranges')}&digest={digest_of(content)}", content)
for value in ("bytes=100-", "bytes=5-2", "bytes=-0", "bytes=99-200"):
    answer = ask("GET", f"/v2/library/ranges/blobs/{digest_of(content)}", Range=value)
    try:
        read = f"{len(answer.read())} bytes"
    except http.client.IncompleteRead as error:
        read = f"{len(error.partial)} bytes, and then the end of the connection"
    print(f"Range: {value}: {answer.status}, Content-Range: {answer.headers['Content-Range']}, Content-Length: {answer.headers['Content-Length']}, {read}")
PYTHON
python3 try.py | tee seen
diff - seen <<'EXPECTED'
Range: bytes=100-: 416, Content-Range: bytes */100, Content-Length: 100, 33 bytes, and then the end of the connection
Range: bytes=5-2: 416, Content-Range: None, Content-Length: 100, 14 bytes, and then the end of the connection
Range: bytes=-0: 206, Content-Range: bytes 100-99/100, Content-Length: 0, 0 bytes
Range: bytes=99-200: 206, Content-Range: bytes 99-99/100, Content-Length: 1, 1 bytes
EXPECTED
echo "as before"
