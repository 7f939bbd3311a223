"""Examples, which the help of a command ends with; "" is the program itself."""

from __future__ import annotations

EXAMPLES = {
    "": ("vex serve", "vex quickstart alice registry.test", "vex ls", "vex help"),
    "serve": (
        "vex serve",
        "vex serve --first-user alice --auth-addr :8201",
        "vex serve --config /etc/vex.conf --log-level warning",
    ),
    "quickstart": ("vex quickstart alice registry.test",),
    "user": ("vex user add bob", "vex user list"),
    "user add": ("vex user add bob", "vex user add bob < password.txt"),
    "user password": ("vex user password bob",),
    "user delete": ("vex user delete bob",),
    "user list": ("vex user list",),
    "token": ("vex token add ci --expires 90d --repository 'team/*'", "vex token list"),
    "token add": (
        "vex token add ci --expires 90d --repository 'team/*'",
        "vex token add scanner --read-only",
    ),
    "token delete": ("vex token delete ci",),
    "token list": ("vex token list",),
    "token rotate-key": ("vex token rotate-key",),
    "certificate": ("vex certificate renew",),
    "certificate renew": ("vex certificate renew --config /etc/vex.conf",),
    "certificate authority": ("vex certificate authority",),
    "check": ("vex check", "vex check --hash-rate 50MiB", "vex check --hash --repair"),
    "log": ("vex log", "vex log team/app:latest", "vex log --since 7d --json"),
    "ls": ("vex ls", "vex ls team/app", "vex ls team/app --json"),
    "rm": ("vex rm team/app:v1 team/app:v2", "vex rm --yes team/app:v1"),
    "tag": (
        "vex tag team/app:v1.2.0 team/app:stable",
        "vex tag staging/app:v1.2.0 production/app:v1.2.0",
    ),
    "rules": ("vex rules plan", "vex rules explain team/app:dev-17"),
    "rules plan": ("vex rules plan", "vex rules plan 'team/*' --json"),
    "rules apply": ("vex rules apply 3",),
    "rules explain": ("vex rules explain team/app:dev-17",),
    "df": ("vex df", "vex df --json"),
    "status": ("vex status", "vex status --json"),
    "backup": ("vex backup /mnt/backup/vex",),
    "import": (
        "vex import image.tar --username alice --repository team/app --tag v1",
        "vex import https://registry.example --username alice --repository 'team/*'",
    ),
    "export": ("vex export team/app:v1 layout", "vex export team/app layout"),
    "describe": ("vex describe > vex.conf", "vex describe --dockerfile > Dockerfile"),
    "testconfig": ("vex testconfig vex.conf",),
    "version": ("vex version",),
    "completion": (
        "vex completion bash > /etc/bash_completion.d/vex",
        "vex completion zsh > /usr/local/share/zsh/site-functions/_vex",
        "vex completion fish > ~/.config/fish/completions/vex.fish",
    ),
    "help": ("vex help", "vex help tls"),
}
