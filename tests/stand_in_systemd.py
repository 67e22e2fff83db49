"""Answers ListUnitsByNames and SystemState in systemd's name, as org.freedesktop.systemd1(5) says.

A process of its own, for pystemd holds the interpreter while it waits. Arguments: address, SystemState, and
``unit=ActiveState`` or ``unit#job`` for each unit that is not inactive or has a job.
"""

import sys

from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_method_call, new_method_return
from jeepney.io.blocking import open_dbus_connection

BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")


def answer(message: Message, system_state: str, states: dict[str, str], jobs: dict[str, int]) -> Message:
    """Answer one call."""
    if message.header.fields[HeaderFields.member] == "Get":
        return new_method_return(message, "v", (("s", system_state),))
    rows = [
        (name, "", "loaded", states.get(name, "inactive"), "dead", "", "/u", jobs.get(name, 0), "", "/j")
        for name in message.body[0]
    ]
    return new_method_return(message, "a(ssssssouso)", (rows,))


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
