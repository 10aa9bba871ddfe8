//! The flags of `redirect`: which connections come to the sidecar, and which do not.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use ipnet::IpNet;

use crate::redirect::{
    self,
    plan::{Datagrams, Plan, Redirection, Spare},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Redirect {
    /// Put the rules in force, in the place of any that were installed before. All or nothing.
    Install(Install),
    /// Remove all rules of ours; none installed is no error.
    Remove,
    /// Print what is installed, with its counters.
    Show,
}

#[derive(Debug, clap::Args)]
pub(super) struct Install {
    /// The sidecar's uid, whose connections pass untouched. [default: 2112]
    #[arg(long, env = "DOUANE_UID", conflicts_with = "mark")]
    uid: Option<u32>,
    /// The sidecar's socket mark, where only one uid exists (an unprivileged lab).
    #[arg(long, env = "DOUANE_MARK")]
    mark: Option<u32>,
    /// A port of the pod that stays open to anyone, in plaintext. Repeatable.
    #[arg(long, value_delimiter = ',')]
    exclude_inbound_port: Vec<u16>,
    /// A port that the pod's connections reach directly. Repeatable.
    #[arg(long, value_delimiter = ',')]
    exclude_outbound_port: Vec<u16>,
    /// A network that the pod's connections reach directly. Repeatable.
    #[arg(long, value_delimiter = ',')]
    exclude_outbound_cidr: Vec<IpNet>,
    /// What becomes of UDP, SCTP and DCCP, which the sidecar does not carry.
    #[arg(long, value_enum, default_value_t = Udp::Deny)]
    udp: Udp,
    /// A resolver that UDP port 53 may reach although UDP is denied. Repeatable.
    #[arg(long, value_delimiter = ',')]
    dns_resolver: Vec<IpAddr>,
    /// A file such as /etc/resolv.conf, whose `nameserver` lines are such resolvers.
    #[arg(long, value_name = "FILE")]
    dns_resolvers_of: Option<PathBuf>,
    /// A UDP port that passes in both directions although UDP is denied. Repeatable.
    #[arg(long, value_delimiter = ',')]
    udp_port: Vec<u16>,
    /// Print the rules instead of installing them.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Udp {
    /// New datagrams are dropped and counted.
    Deny,
    /// Datagrams pass, unseen by the mesh.
    Allow,
}

impl Redirect {
    pub(super) fn obey(self) -> anyhow::Result<()> {
        match self {
            Self::Install(install) => install.obey(),
            Self::Remove => Ok(redirect::remove()?),
            Self::Show => {
                print!("{}", redirect::show()?);
                Ok(())
            }
        }
    }
}

impl Install {
    fn obey(mut self) -> anyhow::Result<()> {
        if let Some(file) = &self.dns_resolvers_of {
            let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            self.dns_resolver.extend(resolvers(&text));
        }
        let datagrams = match self.udp {
            Udp::Allow => Datagrams::Allow,
            Udp::Deny => Datagrams::Deny { dns_resolvers: self.dns_resolver, udp_ports: self.udp_port },
        };
        let plan = Plan::new(&Redirection {
            spare: Spare::chosen(self.uid, self.mark)?,
            excluded_inbound_ports: self.exclude_inbound_port,
            excluded_outbound_ports: self.exclude_outbound_port,
            excluded_outbound_cidrs: self.exclude_outbound_cidr,
            datagrams,
        });
        if self.dry_run {
            print!("{plan}");
            return Ok(());
        }
        Ok(redirect::install(&plan)?)
    }
}

// As resolv.conf(5) has them; an address with a zone is of a link, which no pod has.
fn resolvers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolvers_of_a_pod_are_read_from_its_own_file() {
        let text = "search shop.svc.cluster.local\nnameserver 10.96.0.10\n# nameserver 1.1.1.1\nnameserver\tfd00::a\n\
                    nameserver fe80::1%eth0\noptions ndots:5\n";

        let expected: [IpAddr; 2] = ["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        assert_eq!(resolvers(text).collect::<Vec<_>>(), expected);
    }
}
