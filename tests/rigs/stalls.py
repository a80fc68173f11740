"""How long the machine under a rig stood still, or its disk did. What comes late because of that says nothing about the
program; a rig that judges times subtracts it, or leaves out what cannot be judged."""
import os
import threading
import time

PAUSE = 0.2
# A turn that took less than this longer than its pause is no stall.
USUAL = 0.2


class Stalls(threading.Thread):
    """Turns several times a second, makes a small file durable each time, and notes the turns that took long."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.path, self.over = os.path.join(str(directory), "stalls"), threading.Event()
        self.found, self.turned = [], time.time()

    def run(self):
        while not self.over.wait(PAUSE):
            with open(self.path, "wb") as file:
                os.fsync(file.fileno())
            began, now = self.turned, time.time()
            if now - began > PAUSE + USUAL:
                self.found.append((began + PAUSE, now))
            self.turned = now

    def seconds(self, began=0.0, ended=float("inf")):
        """Of the time between two moments, what was a stall; also one that lasts."""
        found = [*self.found, (self.turned + PAUSE, time.time())]
        return sum(max(0.0, min(ended, last) - max(began, first)) for first, last in found if last - first > USUAL)

    def end(self):
        self.over.set()
        self.join()
