"""Takes memory without end. The kernel kills it at its own limit, and its caller is told that."""


def handle(event, context):
    taken = []
    while True:
        taken.append(bytearray(8 * 2**20))
