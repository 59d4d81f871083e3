"""Workers in this process, for tests of what a study asks of workers."""

from concurrent.futures import BrokenExecutor, Future

from spikebridge.pipeline.base.executors import Workers


class Inline(Workers):
    """Work in this process, and die as often as asked."""

    lost = (BrokenExecutor,)

    def __init__(self, deaths=0):
        self.deaths, self.done = deaths, []

    def submit(self, function, task):
        if self.deaths:
            self.deaths -= 1
            future = Future()
            future.set_exception(BrokenExecutor("a worker died"))
            return future
        self.done.append(task.run)
        return super().submit(function, task)
