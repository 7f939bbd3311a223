"""The Dockerfile that `vex describe --dockerfile` prints: Vex in a container, as a user without rights, with its data
in a volume.

No step needs a shell or a program of the base image but Python.
"""

from __future__ import annotations

DOCKERFILE = """\
# Vex in a container; build it where vex.pyz is.
FROM python:3-slim
COPY vex.pyz /vex.pyz

# A user and a group without a name and without rights, who own the data.
RUN ["python3", "-c", "import os; os.mkdir('/data', 0o750); os.chown('/data', 8200, 8200)"]
USER 8200:8200

# Here Vex finds data, and vex.conf if you mount one.
WORKDIR /
VOLUME /data

# The public, the auth and the internal port.
EXPOSE 8200 8201 8202
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \\
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8202/healthz', timeout=4)"]
ENTRYPOINT ["python3", "/vex.pyz"]
CMD ["serve", "--public-addr", ":8200", "--auth-addr", ":8201", "--internal-addr", ":8202"]
"""
