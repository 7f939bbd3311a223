#!/bin/sh
# docker-registry 2.8.2 takes a manifest whose descriptors say a wrong size.
#
# Guessed: 400, since it has the blob and looks whether it is there. Seen: 201, and the manifest is served as it is. Clients that check
# sizes, as the image specification asks them to ("Descriptors", size), fail at the pull, long after the push was accepted.
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
push("library/sizes")
for size in (2, 999, 0):
    print(f"config of 2 bytes, described with {size}:", ask("PUT", "/v2/library/sizes/manifests/v1", manifest(size), Content_Type=TYPE).status)
answer = ask("GET", "/v2/library/sizes/manifests/v1", Accept=TYPE)
print("served with the size", json.loads(answer.read())["config"]["size"])
PYTHON
python3 try.py | tee seen
diff - seen <<'EXPECTED'
config of 2 bytes, described with 2: 201
config of 2 bytes, described with 999: 201
config of 2 bytes, described with 0: 201
served with the size 0
EXPECTED
echo "as before"
