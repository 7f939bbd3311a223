#!/bin/sh
# h2o 2.2.5 and lighttpd 1.4.69 take a whole chunked PATCH before the server behind them sees a byte of it, and answer "Expect" themselves.
#
# Guessed: each chunk is passed on as it comes, and Expect too, so that the server behind can refuse before the body (RFC 9110 section 10.1.1),
# as HAProxy 2.6.12 does both. Seen: the request goes on when its last chunk has come, with a Content-Length of them all, and 100 (Continue) is sent
# without a word with the server behind. A push of docker through them sends the whole layer before it hears 413 or 507, and takes the time of
# both transfers, one after the other.
set -eu
work=$(mktemp -d)
pids=
trap '[ -z "$pids" ] || kill $pids 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get download -q h2o=2.2.5+dfsg2-7 libyaml-0-2=0.2.5-1 lighttpd=1.4.69-1 haproxy=2.6.12-1+deb12u4 liblua5.3-0=5.3.6-2 >apt.log 2>&1 || { cat apt.log; exit 1; }
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$work/usr/lib/x86_64-linux-gnu"
cat >behind.py <<'PYTHON'
import http.server


class Behind(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PATCH(self):
        framing = "chunked" if "Transfer-Encoding" in self.headers else f"Content-Length: {self.headers['Content-Length']}"
        with open("seen-behind", "a") as file:
            file.write(f"{framing}, Expect: {self.headers['Expect']}\n")
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def handle_expect_100(self):
        return True

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", 15873), Behind).serve_forever()
PYTHON
cat >h2o.conf <<'YAML'
listen: {host: 127.0.0.1, port: 15874}
hosts: {default: {paths: {"/": {proxy.reverse.url: "http://127.0.0.1:15873/"}}}}
YAML
[ "$(id -u)" != 0 ] || echo "user: root" >>h2o.conf
cat >lighttpd.conf <<'CONF'
server.document-root = "."
server.bind = "127.0.0.1"
server.port = 15875
server.modules = ("mod_proxy")
proxy.server = ("" => (("host" => "127.0.0.1", "port" => 15873)))
CONF
cat >haproxy.cfg <<'CONF'
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend front
    bind 127.0.0.1:15876
    default_backend behind
backend behind
    server behind 127.0.0.1:15873
CONF
python3 behind.py &
pids=$!
usr/bin/h2o -c h2o.conf >h2o.log 2>&1 &
pids="$pids $!"
usr/sbin/lighttpd -D -m usr/lib/lighttpd -f lighttpd.conf >lighttpd.log 2>&1 &
pids="$pids $!"
usr/sbin/haproxy -db -f haproxy.cfg >haproxy.log 2>&1 &
pids="$pids $!"
cat >try.py <<'PYTHON'
import os, socket, time


def connected(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on {port}")


def status(connection):
    return connection.makefile("rb").readline().split()[1].decode()


def behind():
    return open("seen-behind").read().strip() if os.path.exists("seen-behind") else "nothing"


connected(15873)
for proxy, port in (("haproxy", 15876), ("h2o", 15874), ("lighttpd", 15875)):
    for what, fields in (("chunked", "Transfer-Encoding: chunked"), ("expect", "Content-Length: 5\r\nExpect: 100-continue")):
        connection = connected(port)
        connection.sendall(f"PATCH /v2/library/app/blobs/uploads/1 HTTP/1.1\r\nHost: registry.example\r\n{fields}\r\n\r\n".encode())
        if what == "chunked":
            connection.sendall(b"5\r\nfirst\r\n")
            time.sleep(1)
            print(f"{proxy}: after the first chunk, behind: {behind()}")
            try:
                connection.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
            except OSError:
                pass
            print(f"{proxy}: answered {status(connection)}, behind: {behind()}")
        else:
            print(f"{proxy}: before the body: answered {status(connection)}, behind: {behind()}")
        connection.close()
        time.sleep(0.5)
        if os.path.exists("seen-behind"):
            os.remove("seen-behind")
PYTHON
usr/sbin/lighttpd -v | head -n 1
usr/sbin/haproxy -v | head -n 1
usr/bin/h2o --version | head -n 1
python3 try.py | tee seen
diff - seen <<'EXPECTED'
haproxy: after the first chunk, behind: chunked, Expect: None
haproxy: answered 401, behind: chunked, Expect: None
haproxy: before the body: answered 401, behind: Content-Length: 5, Expect: 100-continue
h2o: after the first chunk, behind: nothing
h2o: answered 401, behind: Content-Length: 11, Expect: None
h2o: before the body: answered 100, behind: nothing
lighttpd: after the first chunk, behind: nothing
lighttpd: answered 401, behind: Content-Length: 11, Expect: None
lighttpd: before the body: answered 100, behind: nothing
EXPECTED
echo "as before"
