# The gateway's own image. `make gateway-image` puts packages/ into the context: the dependencies, as wheels for
# the base's Python, so that the build needs no network.
#
#   docker run --rm --network host --pid host --cap-add SYS_ADMIN --cap-add SYS_PTRACE \
#     -v /var/run/docker.sock:/var/run/docker.sock -v DATA:DATA -v FOLDER:FOLDER:ro \
#     hearth/gateway serve --data-dir DATA --functions FOLDER/functions.yaml
#
# DATA and FOLDER have the same path inside and outside: the engine mounts the instances' sockets from there.
# Network and process ids are the host's for functions without a network: the gateway enters their namespace.
ARG BASE=hearth-base:latest
FROM ${BASE}
COPY packages /opt/hearth/packages
COPY gateway /opt/hearth/app/gateway
COPY scheduler /opt/hearth/app/scheduler
COPY pool /opt/hearth/app/pool
COPY runtimes /opt/hearth/app/runtimes
ENV PYTHONPATH=/opt/hearth/app:/opt/hearth/packages PYTHONUNBUFFERED=1
RUN ["python3", "-m", "compileall", "-q", "/opt/hearth"]
ENTRYPOINT ["python3", "-m", "gateway.cli"]
CMD ["serve"]
