"""A Go peer that came by itself is found again by a Pinfold peer that starts elsewhere and knows only its id: where it is was kept."""
import time
from among import Go, Pinfold
from judge import BEGUN, expect, judge, until


def main():
    go = Go(1)
    go.start_kubo()
    ours = Pinfold([go.id])
    ours.start(mdns=False)
    first = ours.address
    go.start(["*"], [first])

    def sees():
        return any(row["id"] == go.id for row in ours.ask("peers", "ls")) and go.id in ours.ctl("health", "metrics", "ping")
    until("the Go peer came to us", sees)
    # What it answered about itself is written by then.
    time.sleep(8)
    ours.process.terminate()
    ours.process.wait(30)
    ours.start(mdns=False)
    expect("we are somewhere else", ours.address != first)
    until("it is found where it was", sees, 60)
    until("and lists us", lambda: any(row["id"] == ours.id and not row["error"] for row in go.ask("peers", "ls")))
    print(f"figure: {time.time() - BEGUN:.0f} s until a Go peer was found again")


judge(main)
