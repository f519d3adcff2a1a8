#!/usr/bin/env python3
"""A client of varlink's own protocol: messages of JSON that end with a NUL.

    varlink.py connect SOCKET                         makes the calls of standard input at a socket
    varlink.py listening|connected [NAME] -- PROGRAM…  starts the program with a socket as its descriptor 3, as systemd does (sd_listen_fds(3)), and
                                                      makes the calls: a listening socket, or one end of a connection; NAME is LISTEN_FDNAMES

Each line of standard input is a call in JSON. "HANDLE" in it stands for the last handle that was replied. Each reply is printed as a line of JSON. With
`listening` and `connected`, the last line is the exit status of the program, which gets SIGTERM, or the end of its connection.
"""
import json
import os
import signal
import socket
import sys
import tempfile


def calls(connection):
    handle, rest = None, b""
    for line in sys.stdin:
        call = json.loads(line.replace('"HANDLE"', json.dumps(handle)))
        connection.sendall(json.dumps(call).encode() + b"\0")
        while not call.get("oneway"):
            while b"\0" not in rest:
                received = connection.recv(1 << 16)
                if not received:
                    sys.exit("the service has closed the connection")
                rest += received
            message, rest = rest.split(b"\0", 1)
            reply = json.loads(message)
            print(json.dumps(reply, sort_keys=True), flush=True)
            handle = reply.get("parameters", {}).get("handle", handle)
            if not reply.get("continues"):
                break


def start(passed, name, program):
    process = os.fork()
    if process == 0:
        os.dup2(passed.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        if name:
            os.environ["LISTEN_FDNAMES"] = name
        os.execv(program[0], program)
    passed.close()
    return process


kind, arguments = sys.argv[1], sys.argv[2:]
if kind == "connect":
    client = socket.socket(socket.AF_UNIX)
    client.connect(arguments[0])
    calls(client)
    sys.exit()
split = arguments.index("--")
name, program = "".join(arguments[:split]), arguments[split + 1:]
if kind == "connected":
    client, passed = socket.socketpair(socket.AF_UNIX)
    process = start(passed, name, program)
    calls(client)
    client.close()
else:
    with tempfile.TemporaryDirectory() as folder:
        passed = socket.socket(socket.AF_UNIX)
        passed.bind(folder + "/socket")
        passed.listen()
        process = start(passed, name, program)
        client = socket.socket(socket.AF_UNIX)
        client.connect(folder + "/socket")
        calls(client)
        os.kill(process, signal.SIGTERM)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        # It is the service manager's, which goes on to listen.
        assert os.path.exists(folder + "/socket")
print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
