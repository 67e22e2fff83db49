"""Answers what we and systemctl ask, in systemd's name, as org.freedesktop.systemd1(5) says.

A process of its own, for pystemd holds the interpreter while it waits. Arguments: the bus's address, or the path of the
socket that systemctl asks when it is root, /run/systemd/private; SystemState; and what is to be known of units:
``unit=ActiveState``, ``unit#job``, ``unit@usec`` (when it last left "inactive"), ``alias>unit``. Units that are not named
do not exist.
"""

import re
import socket
import sys
from collections.abc import Callable
from itertools import count

from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_method_call, new_method_return
from jeepney.io.blocking import open_dbus_connection
from jeepney.low_level import Parser

BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
UNITS = "/org/freedesktop/systemd1/unit/"
Units = dict[str, dict[str, str]]  # what is known of each, by the character between


def answer(message: Message, system_state: str, units: Units) -> Message:
    """Answer one call, ours or one of ``systemctl show``."""
    member = message.header.fields[HeaderFields.member]
    name = unit_of(message.header.fields[HeaderFields.path])
    known = properties(name, system_state, units)
    if member == "Get":
        return new_method_return(message, "v", (known[message.body[1]],))
    if member == "GetAll":
        return new_method_return(message, "a{sv}", (known,))
    rows = [row(properties(each, system_state, units)) for each in message.body[0]]
    return new_method_return(message, "a(ssssssouso)", (rows,))


def properties(name: str, system_state: str, units: Units) -> dict[str, tuple[str, object]]:
    """What systemd says of a unit, and of itself; an alias is told by the name of its unit."""
    name = units.get(name, {}).get(">", name)
    unit = units.get(name, {})
    return {
        "SystemState": ("s", system_state),
        "Id": ("s", name),
        "LoadState": ("s", "loaded" if unit else "not-found"),
        "ActiveState": ("s", unit.get("=", "inactive")),
        "InactiveExitTimestampMonotonic": ("t", int(unit.get("@", 0))),
        "Job": ("(uo)", (int(unit.get("#", 0)), "/j")),
        "Before": ("as", [each for each, of_it in units.items() if "=" in of_it]),
    }


def row(unit: dict[str, tuple[str, object]]) -> tuple[object, ...]:
    """One unit, as ListUnitsByNames tells it."""
    (_, name), (_, load), (_, active), (_, job) = (unit[each] for each in ("Id", "LoadState", "ActiveState", "Job"))
    assert isinstance(job, tuple)
    return (name, "", load, active, "dead", "", path_of(str(name)), job[0], "", "/j")


def path_of(unit: str) -> str:
    """Make the object path of a unit, ``/org/freedesktop/systemd1/unit/k3s_2eservice``."""
    return UNITS + re.sub("[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):02x}", unit)


def unit_of(path: str) -> str:
    """Take the unit's name out of an object path."""
    return re.sub("_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), path.removeprefix(UNITS))


def parsed(arguments: list[str]) -> Units:
    """Read what is to be known."""
    units: Units = {}
    for argument in arguments:
        name, kind, value = re.split("([=#@>])", argument, maxsplit=1)
        units.setdefault(name, {})[kind] = value
    return units


def main() -> None:
    """Serve until killed."""
    address, system_state, *arguments = sys.argv[1:]
    units = parsed(arguments)

    def reply(message: Message) -> Message:
        return answer(message, system_state, units)

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
