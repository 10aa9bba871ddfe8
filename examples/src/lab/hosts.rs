//! The text of a pod's /etc/hosts. Pure.

use std::{fmt::Write as _, net::IpAddr};

/// A name and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// All its names.
    pub names: Vec<String>,
    /// All its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// A service as a pod in `namespace` may call it.
    #[must_use]
    pub fn service(name: &str, service_namespace: &str, namespace: &str, addresses: Vec<IpAddr>) -> Self {
        let mut names = vec![
            format!("{name}.{service_namespace}.svc.cluster.local"),
            format!("{name}.{service_namespace}.svc"),
            format!("{name}.{service_namespace}"),
        ];
        // The bare name means the pod's own namespace, as a cluster's search path has it.
        if service_namespace == namespace {
            names.push(name.to_owned());
        }
        Self { names, addresses }
    }
}

/// The whole file of the pod `name`.
#[must_use]
pub fn hosts_file(name: &str, own: &[IpAddr], hosts: &[Host]) -> String {
    let mut file = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for address in own {
        let _ = writeln!(file, "{address}\t{name}");
    }
    for host in hosts {
        for address in &host.addresses {
            let _ = writeln!(file, "{address}\t{}", host.names.join(" "));
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_short_name_only_in_its_own_namespace() {
        let address = vec!["10.96.0.100".parse().unwrap()];
        let hosts = [
            Host::service("orders", "shop", "shop", address.clone()),
            Host::service("orders", "other", "shop", address),
        ];

        let file = hosts_file("web-1", &["10.77.0.11".parse().unwrap()], &hosts);

        assert_eq!(
            file,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.77.0.11\tweb-1\n\
             10.96.0.100\torders.shop.svc.cluster.local orders.shop.svc orders.shop orders\n\
             10.96.0.100\torders.other.svc.cluster.local orders.other.svc orders.other\n"
        );
    }
}
