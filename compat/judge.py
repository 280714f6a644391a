"""What the judges with real Kubo and Go peers share: a folder of their own, processes that end with them, checks that say what passed."""
import os, pathlib, shutil, subprocess, sys, tempfile, time

import peer
from peer import BEGUN, passed
from peer import PINFOLD as BIN

PEERS = pathlib.Path(os.environ["PINFOLD_PEERS"])
IPFS = PEERS / "ipfs"
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="pinfold-judge-"))
RUNNING = []


def expect(what, value):
    peer.expect(what, value)
    passed(what)
    return value


def until(what, check, limit=90):
    """Waits until `check` gives something; a check that fails is tried again."""
    end, last = time.time() + limit, None
    while time.time() < end:
        try:
            last = check()
            if last:
                passed(what)
                return last
        except (OSError, KeyError, ValueError, subprocess.CalledProcessError) as error:
            last = error
        time.sleep(0.3)
    detail = last.stderr if isinstance(last, subprocess.CalledProcessError) else last
    raise SystemExit(f"FAILED: not within {limit} s: {what} (last: {detail!r})")


def start(name, argv, env=None, **options):
    """`env` comes on top of this process's own."""
    log = open(FOLDER / f"{name}.log", "ab")
    options = {"stdout": log, "stderr": log, **options}
    process = subprocess.Popen([str(part) for part in argv], stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, **options)
    process.name = name
    RUNNING.append(process)
    return process


def judge(main):
    """Runs it; whatever comes of it, nothing is left behind. A failure comes with what the processes said."""
    try:
        main()
    except BaseException as error:
        if isinstance(error, subprocess.CalledProcessError):
            print(error.stderr if isinstance(error.stderr, str) else (error.stderr or b"").decode(errors="replace"), file=sys.stderr)
        for log in sorted(FOLDER.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        raise
    finally:
        for process in reversed(RUNNING):
            if process.poll() is None:
                process.terminate()
        for process in RUNNING:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(FOLDER, ignore_errors=True)
