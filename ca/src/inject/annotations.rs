//! What a pod wishes of its sidecar, by annotations with our prefix. A misspelt one would silently do nothing: it is refused
//! with the nearest name that is known.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::tree::Tree;
use crate::config::{Injection, Order, Permission};

/// What all our labels and annotations begin with.
pub(super) const PREFIX: &str = "douane.io/";
/// Label and annotation: is the pod wanted in the mesh?
pub const INJECT: &str = "douane.io/inject";
/// What the injector writes down of its work.
pub(super) const STATUS: &str = "douane.io/status";

/// All that somebody may write. The last three are read by others: by the injector itself, and by discovery.
const KNOWN: [&str; 21] = [
    "native-sidecar",
    "proxy-image",
    "proxy-uid",
    "proxy-cpu-request",
    "proxy-cpu-limit",
    "proxy-memory-request",
    "proxy-memory-limit",
    "drain-delay",
    "skip-inbound-ports",
    "skip-outbound-ports",
    "skip-outbound-cidrs",
    "udp",
    "udp-ports",
    "log-level",
    "access-log",
    "trace-sampling",
    "environment",
    "rewrite-probes",
    "inject",
    "status",
    "preserve-case",
];
/// A pod drains this long at most: Kubernetes ends it before.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);
/// So many changed letters are no misspelling any more.
const FAR: usize = 5;

/// What a pod wishes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Another order of its containers.
    pub(super) order: Option<Order>,
    /// Another image.
    pub(super) image: Option<String>,
    /// Another uid of the sidecar.
    pub(super) uid: Option<u32>,
    /// Other resources.
    pub(super) cpu_request: Option<String>,
    /// See [`Wishes::cpu_request`].
    pub(super) cpu_limit: Option<String>,
    /// See [`Wishes::cpu_request`].
    pub(super) memory_request: Option<String>,
    /// See [`Wishes::cpu_request`].
    pub(super) memory_limit: Option<String>,
    /// Serve so long after SIGTERM.
    pub(super) drain_delay: Option<String>,
    /// Ports that stay open in plaintext.
    pub(super) skip_inbound: Vec<u16>,
    /// Ports that are reached directly.
    pub(super) skip_outbound: Vec<u16>,
    /// Networks that are reached directly.
    pub(super) skip_cidrs: Vec<IpNet>,
    /// Datagrams pass, unseen by the mesh.
    pub(super) udp: Datagrams,
    /// UDP ports that pass.
    pub(super) udp_ports: Vec<u16>,
    /// The sidecar's log filter.
    pub(super) log: Option<String>,
    /// Where the access log goes.
    pub(super) access_log: Option<String>,
    /// Which traces that begin here are exported.
    pub(super) trace_sampler: Option<String>,
    /// The environment's name.
    pub(super) environment: Option<String>,
    /// What becomes of the kubelet's probes.
    pub(super) probes: Probes,
}

/// What becomes of UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Datagrams {
    /// Dropped but for DNS.
    #[default]
    Deny,
    /// They pass.
    Allow,
}

/// What becomes of the kubelet's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Probes {
    /// The sidecar answers them, having asked the application.
    #[default]
    Rewrite,
    /// They stay as they are.
    Leave,
}

/// Reads the annotations of a pod.
///
/// # Errors
/// What is wrong with the first that cannot be read, and how to mend it.
pub(super) fn read(annotations: Option<&Tree>, settings: &Injection) -> Result<Wishes, String> {
    let mut wishes = Wishes::default();
    let Some(annotations) = annotations.and_then(Tree::as_map) else { return Ok(wishes) };
    for (key, value) in annotations.iter() {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let Some(text) = value.text() else {
            return Err(format!("the annotation {key} is no text; put its value in quotes"));
        };
        wishes.take(name, text.trim()).map_err(|why| match why {
            Wrong::Unknown => unknown(name),
            Wrong::Value(expected) => format!("the annotation {key} is {text:?}; write {expected}"),
        })?;
        let excludes = matches!(
            name,
            "skip-inbound-ports" | "skip-outbound-ports" | "skip-outbound-cidrs" | "udp-ports"
        ) || (name == "udp" && wishes.udp == Datagrams::Allow);
        if excludes && settings.exclusions == Permission::Refused {
            return Err(format!(
                "the annotation {key} takes traffic out of the mesh, which its configuration does not permit; \
                 remove it, or set injection.exclusions: permitted"
            ));
        }
    }
    Ok(wishes)
}

/// The name of ours that is meant, if one is near.
#[must_use]
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let near = KNOWN.iter().map(|known| (distance(name, known), *known)).min()?;
    (near.0 < FAR.min(name.len())).then_some(near.1)
}

enum Wrong {
    Unknown,
    Value(&'static str),
}

impl Wishes {
    fn take(&mut self, name: &str, text: &str) -> Result<(), Wrong> {
        match name {
            "native-sidecar" => {
                self.order = Some(match text {
                    "true" => Order::Native,
                    "false" => Order::Classic,
                    _ => return Err(Wrong::Value("\"true\" or \"false\"")),
                });
            }
            "proxy-image" => self.image = Some(image(text)?),
            "proxy-uid" => {
                let uid = text.parse().ok().filter(|uid| *uid != 0);
                self.uid = Some(uid.ok_or(Wrong::Value("a uid other than 0"))?);
            }
            "proxy-cpu-request" => self.cpu_request = Some(quantity(text)?),
            "proxy-cpu-limit" => self.cpu_limit = Some(quantity(text)?),
            "proxy-memory-request" => self.memory_request = Some(quantity(text)?),
            "proxy-memory-limit" => self.memory_limit = Some(quantity(text)?),
            "drain-delay" => {
                let fits = |life: &Duration| *life <= LONGEST_DRAIN;
                let read = humantime::parse_duration(text).ok().filter(fits);
                read.ok_or(Wrong::Value("a duration such as 5s, an hour at most"))?;
                self.drain_delay = Some(text.to_owned());
            }
            "skip-inbound-ports" => self.skip_inbound = ports(text)?,
            "skip-outbound-ports" => self.skip_outbound = ports(text)?,
            "skip-outbound-cidrs" => self.skip_cidrs = networks(text)?,
            "udp" => {
                self.udp = match text {
                    "allow" => Datagrams::Allow,
                    "deny" => Datagrams::Deny,
                    _ => return Err(Wrong::Value("allow or deny")),
                }
            }
            "udp-ports" => self.udp_ports = ports(text)?,
            "log-level" => {
                let filter = text.chars().all(|char| char.is_ascii_alphanumeric() || "_:=,".contains(char));
                let read = Some(text).filter(|text| filter && !text.is_empty());
                let expected = Wrong::Value("a filter such as info, or info,h2=debug");
                self.log = Some(read.ok_or(expected)?.to_owned());
            }
            "access-log" => match text {
                "on" => self.access_log = Some("-".to_owned()),
                "off" => self.access_log = Some("off".to_owned()),
                _ => return Err(Wrong::Value("\"on\" or \"off\"")),
            },
            "trace-sampling" => self.trace_sampler = Some(sampler(text)?),
            "environment" => self.environment = Some(text.to_owned()),
            "rewrite-probes" => {
                self.probes = match text {
                    "true" => Probes::Rewrite,
                    "false" => Probes::Leave,
                    _ => return Err(Wrong::Value("\"true\" or \"false\"")),
                }
            }
            "inject" | "status" | "preserve-case" => {}
            _ => return Err(Wrong::Unknown),
        }
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    match nearest(name) {
        Some(known) => {
            format!("the annotation {PREFIX}{name} is not known; {PREFIX}{known} is the nearest that is")
        }
        None => format!("the annotation {PREFIX}{name} is not known; known are: {}", KNOWN.join(", ")),
    }
}

fn image(text: &str) -> Result<String, Wrong> {
    let is_sound = !text.is_empty() && text.chars().all(|char| char.is_ascii_graphic());
    if is_sound { Ok(text.to_owned()) } else { Err(Wrong::Value("an image's name")) }
}

// Kubernetes has the last word on it; this keeps out what cannot be one.
fn quantity(text: &str) -> Result<String, Wrong> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let units = ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"];
    if digits.parse::<f64>().is_ok_and(|number| number > 0.0) && units.contains(&unit) {
        return Ok(text.to_owned());
    }
    Err(Wrong::Value("a quantity such as 100m or 64Mi"))
}

fn ports(text: &str) -> Result<Vec<u16>, Wrong> {
    let port = |text: &str| text.trim().parse().ok().filter(|port| *port != 0);
    let read: Option<Vec<u16>> = text.split(',').map(port).collect();
    read.ok_or(Wrong::Value("ports from 1 to 65535, separated by commas"))
}

fn networks(text: &str) -> Result<Vec<IpNet>, Wrong> {
    let network = |text: &str| {
        let text = text.trim();
        text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
    };
    let read: Option<Vec<_>> = text.split(',').map(network).collect();
    read.ok_or(Wrong::Value("networks such as 10.0.0.0/8, separated by commas"))
}

fn sampler(text: &str) -> Result<String, Wrong> {
    let share = |text: &str| text.parse::<f64>().is_ok_and(|share| (0.0..=1.0).contains(&share));
    if matches!(text, "always" | "never" | "defer") || share(text) {
        return Ok(text.to_owned());
    }
    Err(Wrong::Value("always, never, defer or a share such as 0.01"))
}

// Levenshtein's: letters that must be put in, taken out or changed.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (line, char) in one.chars().enumerate() {
        let mut left = line + 1;
        let mut above_left = line;
        for (there, slot) in other.chars().zip(row.iter_mut().skip(1)) {
            let changed = above_left + usize::from(char != there);
            above_left = *slot;
            left = changed.min(left + 1).min(*slot + 1);
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str, exclusions: Permission) -> Result<Wishes, String> {
        let key = format!("{PREFIX}{name}");
        let annotations = Tree::map([(key.as_str(), value.into())]);
        read(Some(&annotations), &Injection { exclusions, ..Injection::default() })
    }

    #[test]
    fn a_misspelt_annotation_is_refused_with_the_nearest_known_name() {
        for (name, known) in [
            ("proxy-cpu-requests", "proxy-cpu-request"),
            ("native-sidecars", "native-sidecar"),
            ("upd", "udp"),
        ] {
            let why = with(name, "x", Permission::Refused).unwrap_err();
            assert!(why.contains(&format!("douane.io/{known} is the nearest")), "{why}");
        }
        let why = with("colour-of-the-sky", "x", Permission::Refused).unwrap_err();
        assert!(why.contains("known are: native-sidecar"), "{why}");
    }

    #[test]
    fn distances_count_letters() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_with_what_would() {
        for (name, value) in [
            ("native-sidecar", "yes"),
            ("proxy-uid", "0"),
            ("proxy-cpu-request", "much"),
            ("proxy-memory-limit", "-1Mi"),
            ("drain-delay", "5"),
            ("drain-delay", "2h"),
            ("skip-inbound-ports", "80,x"),
            ("skip-inbound-ports", "0"),
            ("skip-outbound-cidrs", "10.0.0.0/99"),
            ("udp", "some"),
            ("log-level", "in fo"),
            ("access-log", "/etc/passwd"),
            ("trace-sampling", "1.5"),
            ("rewrite-probes", "no"),
            ("proxy-image", ""),
        ] {
            let why = with(name, value, Permission::Permitted).unwrap_err();
            assert!(why.contains("; write "), "{name}: {why}");
        }
    }

    #[test]
    fn exclusions_hold_only_where_the_mesh_permits_them() {
        for (name, value) in [
            ("skip-inbound-ports", "22"),
            ("skip-outbound-ports", "443, 5432"),
            ("skip-outbound-cidrs", "10.0.0.0/8,192.0.2.1"),
            ("udp", "allow"),
            ("udp-ports", "5000"),
        ] {
            assert!(with(name, value, Permission::Permitted).is_ok(), "{name}");
            let why = with(name, value, Permission::Refused).unwrap_err();
            assert!(why.contains("injection.exclusions"), "{why}");
        }
        assert!(with("udp", "deny", Permission::Refused).is_ok());
    }
}
