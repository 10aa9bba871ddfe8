"""Nothing between: what client, application and kernel can do alone."""

from .candidate import Candidate


class Direct(Candidate):
    name = "direct"
    says = "no proxy"

    def launch(self):
        pass
