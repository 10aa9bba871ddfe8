"""The candidates. `candidate` holds what all share; each other file is one of them."""

from .direct import Direct
from .douane import Douane, DouaneWithoutLog
from .envoy import Envoy
from .haproxy import Haproxy
from .nginx import Nginx

CANDIDATES = (Direct, Douane, DouaneWithoutLog, Haproxy, Nginx, Envoy)
