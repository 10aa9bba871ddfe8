//! What a configuration file can say, and what it cannot.

use super::*;
use douane_proto::policy::ProviderProtocol;

#[test]
fn an_empty_file_is_all_defaults() {
    assert_eq!(Config::parse("").unwrap(), Config::default());
    assert_eq!(Config::parse("# nothing yet\n{}").unwrap(), Config::default());
}

#[test]
fn every_field_can_be_written() {
    let text = "
dir: /var/lib/douane
listen: ['0.0.0.0:15012', '[::1]:15012']
resources: [/etc/douane/mesh]
trustDomain: example.org
clusterDomain: example.local
rootNamespace: law
leafTtl: 10m
tokens: {jwks: /etc/jwks.json, issuer: https://issuer, audience: us}
dnsNames: [ca.example.org]
outbound: ALLOW_ANY
pathNormalization: MERGE_SLASHES
metrics: 127.0.0.1:15014
";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.leaf_ttl, Duration::from_secs(600));
    assert_eq!(config.mesh().outbound, OutboundMode::AllowAny);
    assert_eq!(config.tokens.as_ref().unwrap().audience, "us");
    assert!(config.own_names().contains(&"douane-ca.douane-system.svc.example.local".to_owned()));
    assert!(config.own_names().contains(&"ca.example.org".to_owned()));
}

#[test]
fn a_lifetime_that_no_certificate_can_have_is_refused_and_not_bent() {
    let config = |seconds| Config { leaf_ttl: Duration::from_secs(seconds), ..Config::default() };
    for seconds in [0, 9, 24 * 3600 + 1, u64::MAX] {
        let error = config(seconds).check().unwrap_err().to_string();
        assert!(error.contains("10s to 24h"), "{error}");
    }
    for seconds in [10, 24 * 3600] {
        config(seconds).check().unwrap();
    }
}

#[test]
fn a_root_namespace_that_nothing_can_be_in_is_refused() {
    for name in ["", " istio-system", "Istio-System", "istio_system", "a/b", "-a"] {
        let config = Config { root_namespace: name.to_owned(), ..Config::default() };
        assert!(config.check().unwrap_err().to_string().contains("rootNamespace"), "{name:?}");
    }
    Config { root_namespace: "law-2".to_owned(), ..Config::default() }.check().unwrap();
}

#[test]
fn a_misspelt_field_is_refused_with_its_line() {
    let error = Config::parse("dir: /x\nlisten: []\ntrustdomain: a\n").unwrap_err().to_string();
    assert!(error.contains("trustdomain") && error.contains('3'), "{error}");
    assert!(Config::parse("leafTtl: soon\n").is_err());
    assert!(Config::parse("trustDomain: 'Not One'\n").is_err());
}

const PROVIDERS: &str = "
extensionProviders:
  - name: grpc
    envoyExtAuthzGrpc: {service: shop/ext.shop.svc, port: 9000, timeout: 500ms, failOpen: true, statusOnError: '503', includeRequestBodyInCheck: {maxRequestBytes: 1024, allowPartialMessage: true, packAsBytes: true}}
  - name: http
    envoyExtAuthzHttp:
      service: ext.shop.svc.cluster.local
      port: 8000
      pathPrefix: /check
      includeRequestHeadersInCheck: [x-ext-authz, 'x-a-*']
      includeAdditionalHeadersInCheck: {x-from: mesh}
      headersToUpstreamOnAllow: [authorization]
      headersToDownstreamOnDeny: [www-authenticate]
      headersToDownstreamOnAllow: [set-cookie]
";

#[test]
fn external_authorizers_are_read_in_the_form_of_istios_mesh_configuration() {
    let config = Config::parse(PROVIDERS).unwrap();
    let [grpc, http] = &config.extension_providers[..] else { panic!("two: {config:?}") };
    assert_eq!((grpc.host.as_str(), grpc.port), ("ext.shop.svc", 9000));
    assert_eq!((grpc.timeout, grpc.fail_open), (Duration::from_millis(500), true));
    assert_eq!((grpc.status_on_error.as_u16(), grpc.max_request_bytes), (503, 1024));
    assert!(grpc.allow_partial_message && grpc.pack_as_bytes && grpc.protocol == ProviderProtocol::Grpc);
    let ProviderProtocol::Http(check) = &http.protocol else { panic!("http") };
    assert_eq!(check.path_prefix, "/check");
    assert_eq!(check.include_headers, ["x-ext-authz", "x-a-*"]);
    assert_eq!(check.additional_headers["x-from"], "mesh");
    assert_eq!(http.status_on_error.as_u16(), 403, "closed, unless it is said otherwise");
    assert_eq!(config.law().providers.len(), 2);
}

#[test]
fn what_is_wrong_with_an_authorizer_is_said_with_its_line() {
    for (from, to, line, what) in [
        ("timeout: 500ms", "timeout: 600s", 4, "30s"),
        ("timeout: 500ms", "timeout: soon", 4, "soon"),
        ("failOpen", "failedOpen", 4, "failedOpen"),
        ("'503'", "'200'", 4, "statusOnError"),
        ("shop/ext.shop.svc", "http://ext", 4, "service"),
        ("port: 9000", "port: 0", 4, "port"),
        ("pathPrefix: /check", "pathPrefix: check", 9, "pathPrefix"),
        ("'x-a-*'", "'x-*-a'", 9, "header"),
        ("name: http", "name: grpc", 5, "twice"),
        ("envoyExtAuthzHttp", "envoyOtelAls", 6, "envoyOtelAls"),
    ] {
        let error = Config::parse(&PROVIDERS.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(what), "{to}: {error}");
        assert!(error.contains("line"), "{to} (line {line}): {error}");
    }
}

#[test]
fn the_laws_settings_can_be_written() {
    let text = "
trustDomainAliases: [old.example, cluster.local]
mtlsMode: PERMISSIVE
pathNormalization: DECODE_AND_MERGE_SLASHES
jwks: {allowHttp: true, allowAddresses: [127.0.0.1/32, '::1'], forbidAddresses: [10.96.0.1], trust: /ca.pem, refreshEvery: 5m, keepFor: 1h}
";
    let config = Config::parse(text).unwrap();
    assert_eq!(config.law().mtls, MtlsMode::Permissive);
    assert_eq!(config.mesh().trust_domain_aliases.len(), 2);
    assert_eq!(config.mesh().path_normalization, PathNormalization::DecodeAndMergeSlashes);
    assert_eq!(config.jwks.allow_addresses[1].to_string(), "::1/128");
    assert_eq!(
        Config::parse("pathNormalization: NONE\n").unwrap().mesh().path_normalization,
        PathNormalization::None
    );
    assert_eq!(Config::default().law().mtls, MtlsMode::Strict);
    for wrong in ["mtlsMode: strict\n", "trustDomainAliases: ['A b']\n", "jwks: {allowAddresses: [here]}\n"] {
        assert!(Config::parse(wrong).is_err(), "{wrong}");
    }
}

const FEDERATION: &str = "
trustDomain: a.example
trustDomainAliases: [old.example]
federation:
- trustDomain: b.example
  bundleEndpoint:
    url: https://ca.b.example:8443/bundle
    profile:
      https_spiffe: {endpointSpiffeID: 'spiffe://b.example/ns/douane-system/sa/douane-ca', bundle: /etc/b.json}
- trustDomain: c.example
  bundleEndpoint: {url: 'https://c.example/bundle.json', profile: https_web}
bundleEndpoint:
  listen: 0.0.0.0:8443
  web: {certificate: /etc/web.pem, key: /etc/web.key}
";

#[test]
fn row_1_5_a_relationship_says_all_of_itself() {
    let config = Config::parse(FEDERATION).unwrap();
    config.check().unwrap();
    assert_eq!(config.federation.len(), 2);
    assert!(matches!(&config.federation[0].bundle_endpoint.profile, Profile::Spiffe(_)));
    assert_eq!(config.federation[1].bundle_endpoint.profile, Profile::Web);
    assert!(config.bundle_endpoint.unwrap().web.is_some());
}

#[test]
fn t21_a_relationship_that_is_wrong_or_ours_is_refused_with_its_line() {
    for (right, wrong, line, reason) in [
        ("https://c.example/", "http://c.example/", "11", "https://"),
        ("https://c.example/", "https://me:secret@c.example/", "11", "user"),
        ("https://c.example/bundle.json", "https://c.example/bundle?token=1", "11", "query"),
        ("https://c.example/bundle.json", "https://c.example/#x", "11", "fragment"),
        ("https://c.example/bundle.json", "https:///bundle", "11", "is none"),
        ("trustDomain: c.example", "trustDomain: b.example", "10", "twice"),
        ("trustDomain: c.example", "trustDomain: C.example", "10", "lower case"),
        ("profile: https_web", "profile: https", "11", "https_web"),
        ("profile: https_web", "profil: https_web", "11", "profil"),
        ("spiffe://b.example/ns", "spiffe://c.example/ns", "5", "not of b.example"),
        ("spiffe://b.example/ns/douane-system/sa/douane-ca", "spiffe://b.example", "5", "path"),
        ("https_spiffe: {", "https_spiffe: {trust: /x, ", "9", "trust"),
        ("    profile:\n", "    trust: /x\n    profile:\n", "5", "takes no"),
    ] {
        let text = FEDERATION.replacen(right, wrong, 1);
        assert_ne!(text, FEDERATION, "{right}");
        let error = Config::parse(&text).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(line), "{wrong}: {error}");
    }
    for own in ["a.example", "old.example"] {
        let text = FEDERATION.replacen("- trustDomain: c.example", &format!("- trustDomain: {own}"), 1);
        let error = Config::parse(&text).unwrap().check().unwrap_err().to_string();
        assert!(error.contains("line 10") && error.contains(own), "{error}");
    }
    let many: String = (0..65)
        .map(|n| {
            format!(
                "- trustDomain: d{n}.example\n  bundleEndpoint: {{url: 'https://d', profile: https_web}}\n"
            )
        })
        .collect();
    assert!(Config::parse(&format!("federation:\n{many}")).unwrap_err().to_string().contains("65"));
}

#[test]
fn the_mesh_comes_from_folders_or_from_a_cluster_and_not_from_both() {
    let text = "kubernetes: {kubeconfig: /home/me/.kube/config, context: lab}";
    let config = Config::parse(text).unwrap();
    let access = config.kubernetes.clone().unwrap();
    assert_eq!(
        (access.kubeconfig, access.context),
        (Some("/home/me/.kube/config".into()), Some("lab".into()))
    );
    assert!(config.check().is_ok());
    assert_eq!(Config::parse("kubernetes: {}").unwrap().kubernetes, Some(Kubernetes::default()));

    let both = Config { resources: vec!["mesh".into()], ..config };
    assert!(both.check().unwrap_err().to_string().contains("leave one of them out"));
}
