"""Uses up all that the kernel counts by user and not by container, and keeps it, also while it is frozen."""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
IO_URING_SETUP, IO_URING_REGISTER, REGISTER_BUFFERS = 425, 427, 0
MIB = 2**20
MOST = 200_000  # steps until it gives up: there is more of it than a function can use
FORBIDDEN = (errno.EPERM, errno.ENOSYS)  # how newer engines answer io_uring
KEPT = []


class QueueAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("flags", "most", "size", "now", "a", "b", "c", "d")]


class Piece(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def inotify(size):
    return checked(LIBC.inotify_init())


def descriptors_in_flight(size):
    """Descriptors that were sent over a unix socket and that nobody has received."""
    pair = socket.socketpair()
    pair[0].setblocking(False)
    KEPT.append(pair)
    sent = 0
    while sent < size:
        try:
            socket.send_fds(pair[0], [b"x"], [0] * min(250, size))
        except BlockingIOError:
            return
        sent += min(250, size)


def message_queues(size):
    attributes = ctypes.byref(QueueAttributes(0, 10, 8192))
    name = b"/queue-%d" % len(KEPT)
    KEPT.append(checked(LIBC.mq_open(name, os.O_CREAT | os.O_RDWR, 0o600, attributes)))


def locked_memory(size):
    """Buffers of an io_uring: the kernel locks them for as long as it is open."""
    ring = LIBC.syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
    if ring < 0 and ctypes.get_errno() in FORBIDDEN:
        raise NotImplementedError
    checked(ring)
    memory = mmap.mmap(-1, size)
    piece = Piece(ctypes.addressof(ctypes.c_char.from_buffer(memory)), size)
    KEPT.append((memory, piece))
    checked(LIBC.syscall(IO_URING_REGISTER, ring, REGISTER_BUFFERS, ctypes.byref(piece), 1))


def pending_signals(size):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    checked(LIBC.sigqueue(os.getpid(), signal.SIGRTMIN, None))


def large_pipes(size):
    ends = os.pipe()
    KEPT.append(ends)
    if fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, size) < size:
        raise OSError(errno.EPERM, "smaller than wanted")


MUCH_AND_LITTLE = {
    descriptors_in_flight: (MIB, 1),
    message_queues: (0, 0),
    locked_memory: (65536, 65536),
    pending_signals: (0, 0),
    large_pipes: (MIB, MIB),
    inotify: (0, 0),
}


def handle(event, context):
    """Take all of everything, or with `probe` a little of each: what is refused, and why."""
    used, refused = {}, {}
    for take, (much, little) in MUCH_AND_LITTLE.items():
        try:
            if event == "probe":
                take(little)
            else:
                for step in range(MOST):
                    used[take.__name__] = step
                    take(much)
        except NotImplementedError:
            used.pop(take.__name__, None)
        except OSError as error:
            refused[take.__name__] = error.strerror
    return refused if event == "probe" else {"used": used, "until": refused}
