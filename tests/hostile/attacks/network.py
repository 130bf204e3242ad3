"""Looks for a way out: the internet, the metadata address, the gateway, the host's services, raw packets."""

import socket


def handle(event, context):
    got = []
    places = [tuple(place) for place in event["places"]]
    places += [
        ("192.0.2.1", 80),
        ("1.1.1.1", 53),
        ("169.254.169.254", 80),
        ("172.17.0.1", 22),
        ("fd00:ec2::254", 80),
    ]
    for host, port in places:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as sock:
                sock.settimeout(1)
                try:
                    sock.connect((host, port))
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    if kind == socket.SOCK_STREAM or not host.startswith("127."):
                        got.append(f"reached {host} {port} {kind.name}")
                except OSError:
                    pass
    for family in (socket.AF_INET, socket.AF_PACKET):
        try:
            socket.socket(family, socket.SOCK_RAW, 1).close()
            got.append(f"raw packets of {family.name}")
        except OSError:
            pass
    got += [name for _, name in socket.if_nameindex() if name != "lo"]
    return {"got": got}
