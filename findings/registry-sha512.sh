#!/bin/sh
# docker-registry 2.8.2 takes a blob under its sha512 and names it by its sha256.
#
# Guessed: 400, or the digest that was asked for. Seen: 201 with Docker-Content-Digest and Location of the sha256; the sha512 can be
# pulled as well, but a client that compares the header with what it sent takes a good push for a broken one.
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
content = b"a blob with two names"
asked = digest_of(content, "sha512")
answer = ask("PUT", f"{session('library/sha512')}&digest={asked}", content)
print("PUT with a sha512:", answer.status)
print("Docker-Content-Digest is the one asked for:", answer.headers['Docker-Content-Digest'] == asked)
print("Docker-Content-Digest is the sha256:", answer.headers['Docker-Content-Digest'] == digest_of(content))
print("GET by sha512:", ask("GET", f"/v2/library/sha512/blobs/{asked}").status, "by sha256:", ask("GET", f"/v2/library/sha512/blobs/{digest_of(content)}").status)
PYTHON
python3 try.py | tee seen
diff - seen <<'EXPECTED'
PUT with a sha512: 201
Docker-Content-Digest is the one asked for: False
Docker-Content-Digest is the sha256: True
GET by sha512: 200 by sha256: 200
EXPECTED
echo "as before"
