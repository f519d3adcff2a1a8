"""What the parts of the test have found, and the programs that they run."""
import os, subprocess, threading

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CFSOCI = os.path.abspath(os.environ.get("CFSOCI", HERE + "/../.build/debug/cfsoci"))


class Broken(Exception):
    """The test itself cannot go on."""


class Report:
    """The checks of a part. Parts run side by side, so each prints its lines together, when it has ended."""
    current = threading.local()

    def __init__(self):
        self.lines, self.passed, self.failures = [], 0, []
        Report.current.report = self


def say(text):
    Report.current.report.lines.append(text)


def check(is_right, text, detail=""):
    """One fact. A failure does not end the test."""
    report = Report.current.report
    say(f"  {'ok  ' if is_right else 'FAIL'} {text}")
    if is_right:
        report.passed += 1
        return
    report.failures.append(text)
    if detail:
        say("       " + str(detail)[:4000].replace("\n", "\n       "))


def run(*arguments, **options):
    """Runs a program that must succeed, and returns its standard output."""
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, **options)
    if done.returncode:
        raise Broken(f"{' '.join(str(a) for a in arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def shell(text):
    """With the functions of tools/setup."""
    return run("bash", "-c", f"set -euo pipefail; . {HERE}/setup; {text}")


def make(path):
    os.makedirs(path, exist_ok=True)
    return path


def write(path, text, mode=0o644):
    make(os.path.dirname(path))
    with open(path, "w" if isinstance(text, str) else "wb") as file:
        file.write(text)
    os.chmod(path, mode)
