"""What systemd wants to hear: ready, alive, stopping. Without systemd every call does nothing."""

import os
import socket


def notify(message: str) -> bool:
    """Send one notification, such as `READY=1`; returns whether there was a socket that took it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    # A leading @ stands for Linux's abstract name space.
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(message.encode(), target)
    except OSError:
        return False
    return True


def ready(status: str) -> None:
    """Say that the start is done."""
    notify(f"READY=1\nSTATUS={status}")


def alive(status: str) -> None:
    """Feed the watchdog."""
    notify(f"WATCHDOG=1\nSTATUS={status}")


def stopping() -> None:
    """Say that the end has begun."""
    notify("STOPPING=1")
