"""Puts Python wheels into a folder of their own: wheels.py ROOT NAME PACKAGE...

ROOT/NAME exists only when it is complete: it is filled beside and renamed. The lock is the kernel's, so that it goes with
the process that held it, however that ended. Prints what went wrong and exits with 1.
"""

import os
import shutil
import subprocess
import sys


def lock(path):
    handle = open(path, "a+")
    if os.name == "nt":
        import msvcrt
        import time

        while True:
            try:
                handle.seek(0)
                msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
                return handle
            except OSError:
                time.sleep(0.5)
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def run(command, advice):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        text = done.stdout.decode(errors="replace").strip().splitlines()
        print("\n".join(text[-15:]))
        print(advice)
        sys.exit(1)


def main():
    root, name, packages = sys.argv[1], sys.argv[2], sys.argv[3:]
    os.makedirs(root, exist_ok=True)
    held = lock(os.path.join(root, "lock"))
    done = os.path.join(root, name)
    if os.path.isdir(done):
        return
    venv = os.path.join(root, "venv")
    python = os.path.join(venv, "Scripts", "python.exe") if os.name == "nt" else os.path.join(venv, "bin", "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    works = os.path.exists(python) and subprocess.run(
        pip + ["--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode == 0
    if not works:
        shutil.rmtree(venv, ignore_errors=True)
        run(
            [sys.executable, "-m", "venv", venv],
            "Python cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv)",
        )
    partial = done + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    run(
        pip + ["install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-compile", "--target", partial] + packages,
        "pip could not fetch %s: is the package index within reach?" % " ".join(packages),
    )
    os.rename(partial, done)
    held.close()


main()
