"""Answers what we and systemctl ask, in systemd's name, as org.freedesktop.systemd1(5) says.

A process of its own, for pystemd holds the interpreter while it waits. Arguments: the bus's address, or the path of the
socket that systemctl asks when it is root, /run/systemd/private; SystemState; and ``unit=ActiveState`` or ``unit#job`` for
each unit that is not inactive or has a job.
"""

import json
import re
import socket
import sys
from collections.abc import Callable
from itertools import count

from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_method_call, new_method_return
from jeepney.io.blocking import open_dbus_connection
from jeepney.low_level import Parser

BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")


def answer(message: Message, system_state: str, states: dict[str, str], jobs: dict[str, int]) -> Message:
    """Answer one call, ours or the one of ``systemctl show``; print a unit that shall be started."""
    member = message.header.fields[HeaderFields.member]
    if member == "StartTransientUnit":
        print(json.dumps(message.body), flush=True)
        return new_method_return(message, "o", ("/job/1",))
    if member == "Get" and message.body[1] == "Before":
        return new_method_return(message, "v", (("as", before_of(states)),))
    if member == "Get":
        return new_method_return(message, "v", (("s", system_state),))
    if member == "GetAll":
        name = unit_of(message.header.fields[HeaderFields.path])
        job = (jobs.get(name, 0), "/j")
        properties = {
            "SystemState": ("s", system_state),
            "Id": ("s", name),
            "LoadState": ("s", "loaded"),
            "ActiveState": ("s", states.get(name, "inactive")),
            "Job": ("(uo)", job),
            "Before": ("as", before_of(states)),
        }
        return new_method_return(message, "a{sv}", (properties,))
    rows = [
        (name, "", "loaded", states.get(name, "inactive"), "dead", "", "/u", jobs.get(name, 0), "", "/j")
        for name in message.body[0]
    ]
    return new_method_return(message, "a(ssssssouso)", (rows,))


def before_of(states: dict[str, str]) -> list[str]:
    """What every unit here is ordered before: the units that were named."""
    return list(states)


def unit_of(path: str) -> str:
    """Take the unit's name out of an object path, ``/org/freedesktop/systemd1/unit/k3s_2eservice``."""
    return re.sub("_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), path.rpartition("/")[2])


def main() -> None:
    """Serve until killed."""
    address, system_state, *units = sys.argv[1:]
    states = dict(unit.split("=") for unit in units if "=" in unit)
    jobs = {name: int(job) for name, job in (unit.split("#") for unit in units if "#" in unit)}

    def reply(message: Message) -> Message:
        return answer(message, system_state, states, jobs)

    serve_privately(address, reply) if address.startswith("/") else serve_on_a_bus(address, reply)


def serve_on_a_bus(address: str, reply: Callable[[Message], Message]) -> None:
    """Serve under systemd's name."""
    with open_dbus_connection(address) as connection:
        connection.send_and_get_reply(new_method_call(BUS, "RequestName", "su", ("org.freedesktop.systemd1", 0)))
        print("ready", flush=True)
        while True:
            message = connection.receive()
            if message.header.message_type is MessageType.method_call:
                connection.send(reply(message))


def serve_privately(path: str, reply: Callable[[Message], Message]) -> None:
    """Serve one client after the other, without a bus: the client's whole greeting comes first, then its calls."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            client = listener.accept()[0]
            with client:
                greeting = b""
                while not greeting.endswith(b"BEGIN\r\n"):
                    greeting += client.recv(1)
                client.sendall(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\nERROR\r\n")
                parser, serial = Parser(), count(1)
                while data := client.recv(4096):
                    for message in parser.feed(data):
                        client.sendall(reply(message).serialise(next(serial)))


if __name__ == "__main__":
    main()
