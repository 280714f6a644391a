"""One file over a plain TCP connection: what a link gives without us.

usage: plain.py give ADDRESS PORT FILE      listens, says "ready", gives the file to whoever connects first
       plain.py take ADDRESS PORT           takes all, says how many bytes and seconds from the first packet on
"""
import os, socket, sys, time


def give(address, port, path):
    with socket.create_server((address, int(port))) as server, open(path, "rb") as file:
        print("ready", flush=True)
        with server.accept()[0] as connection:
            connection.sendfile(file)


def take(address, port):
    begun, count = time.monotonic(), 0
    buffer = bytearray(1 << 20)
    with socket.create_connection((address, int(port))) as connection:
        while received := connection.recv_into(buffer):
            count += received
    print(count, time.monotonic() - begun)


{"give": give, "take": take}[sys.argv[1]](*sys.argv[2:])
