"""Envoy twice: HTTP/2 over mutual TLS between, pooled; the client checks the server's SPIFFE ID, RBAC the client's; one
worker, no access log, no filters of statistics: its best case, not Istio's."""

import json
import subprocess

from .. import stage
from ..applications import PORTS
from ..papers import spiffe
from .candidate import INBOUND, OUTBOUND, Configured

V3 = "type.googleapis.com/envoy"


class Envoy(Configured):
    name = "envoy"
    says = "HTTP/2 over mutual TLS between, RBAC, no log"
    needs = ("envoy",)

    def command(self, config):
        # The base id keeps two Envoys of one machine apart.
        return [self.tools["envoy"], "-c", config, "--concurrency", "1", "--log-level", "warn", "--use-dynamic-base-id"]

    def file(self, side):
        return self.folder / f"{side}.json"

    def outbound_config(self):
        listeners, clusters = [], []
        for kind in sorted(self.carries):
            filters = [_http(kind, [])] if kind in ("http", "grpc") else [_tcp(kind)]
            listeners.append(_listener(kind, OUTBOUND[kind], filters, None))
            protocol = "h2" if kind in ("http", "grpc") else None
            clusters.append(_cluster(kind, protocol, self._client_tls(protocol)))
        return _bootstrap(listeners, clusters)

    def inbound_config(self, account):
        listeners, clusters = [], []
        for kind in sorted(self.carries):
            if kind in ("http", "grpc"):
                filters = [_http(kind, [_filter("http.rbac", "filters.http.rbac.v3.RBAC", rules=_only_the_client())])]
            else:
                filters = [_filter("network.rbac", "filters.network.rbac.v3.RBAC", rules=_only_the_client(),
                                   stat_prefix=kind), _tcp(kind)]
            listeners.append(_listener(kind, INBOUND[kind], filters, self._server_tls(account, kind)))
            clusters.append(_cluster(kind, {"http": "h1", "grpc": "h2"}.get(kind), None))
        return _bootstrap(listeners, clusters)

    def _client_tls(self, protocol):
        return _typed("transport_sockets.tls.v3.UpstreamTlsContext",
                      common_tls_context=self._tls("client", "server", protocol))

    def _server_tls(self, account, kind):
        return _typed("transport_sockets.tls.v3.DownstreamTlsContext", require_client_certificate=True,
                      common_tls_context=self._tls(account, None, "h2" if kind in ("http", "grpc") else None))

    def _tls(self, own, expected, protocol):
        validation = {"trusted_ca": {"filename": self.papers["ca.pem"]}}
        if expected:
            validation["match_typed_subject_alt_names"] = [
                {"san_type": "URI", "matcher": {"exact": spiffe(expected)}}]
        context = {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": self.papers[f"{own}.pem"]},
                                  "private_key": {"filename": self.papers[f"{own}.key"]}}],
            "validation_context": validation,
        }
        if protocol:
            context["alpn_protocols"] = [protocol]
        return context

    def version(self):
        told = subprocess.run([self.tools["envoy"], "--version"], capture_output=True, text=True).stdout
        return next((line.strip() for line in told.split("\n") if "version" in line), "envoy")


def _typed(kind, **fields):
    return {"@type": f"{V3}.extensions.{kind}", **fields}


def _filter(name, kind, **fields):
    return {"name": f"envoy.filters.{name}", "typed_config": _typed(kind, **fields)}


def _bootstrap(listeners, clusters):
    return json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}, indent=1)


def _listener(name, port, filters, tls):
    chain = {"filters": filters}
    if tls:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    return {"name": name, "address": _address("0.0.0.0", port), "filter_chains": [chain]}


def _http(kind, before):
    router = _filter("http.router", "filters.http.router.v3.Router")
    route = {"match": {"prefix": "/"}, "route": {"cluster": kind, "timeout": "0s"}}
    return _filter(
        "network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=kind, codec_type="AUTO", http_filters=before + [router],
        route_config={"virtual_hosts": [{"name": kind, "domains": ["*"], "routes": [route]}]})


def _tcp(kind):
    return _filter("network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=kind, cluster=kind)


def _cluster(kind, protocol, tls):
    cluster = {
        "name": kind, "type": "STATIC", "connect_timeout": "5s",
        # The defaults (1,024) are below the thousand idle connections and their margin.
        "circuit_breakers": {"thresholds": [
            {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]},
        "load_assignment": {"cluster_name": kind, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": _address(stage.SERVER, PORTS[kind])}}]}]},
    }
    if tls:
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    if protocol:
        options = {"h2": "http2_protocol_options", "h1": "http_protocol_options"}[protocol]
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{V3}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {options: {}}}}
    return cluster


def _only_the_client():
    principal = {"authenticated": {"principal_name": {"exact": spiffe("client")}}}
    return {"action": "ALLOW", "policies": {"client": {"permissions": [{"any": True}], "principals": [principal]}}}


def _address(address, port):
    return {"socket_address": {"address": address, "port_value": port}}
