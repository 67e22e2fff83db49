"""Answers what we and systemctl ask, in systemd's name, as org.freedesktop.systemd1(5) says.

A process of its own, for pystemd holds the interpreter while it waits. Arguments: address, SystemState, and
``unit=ActiveState`` or ``unit#job`` for each unit that is not inactive or has a job.
"""

import json
import re
import sys

from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_method_call, new_method_return
from jeepney.io.blocking import open_dbus_connection

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
    with open_dbus_connection(address) as connection:
        connection.send_and_get_reply(new_method_call(BUS, "RequestName", "su", ("org.freedesktop.systemd1", 0)))
        print("ready", flush=True)
        while True:
            message = connection.receive()
            if message.header.message_type is MessageType.method_call:
                connection.send(answer(message, system_state, states, jobs))


if __name__ == "__main__":
    main()
