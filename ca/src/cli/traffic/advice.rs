//! What to change so that a denied request would be allowed: asked of the policies as they are written now, by the functions
//! that `douane policy can-i` asks.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use douane_proto::{id::WorkloadId, resource::Resource};
use http::Version;

use crate::{
    config::Config,
    policy::{
        asked::{Asked, Head, Mesh, SOMEWHERE},
        change::Change,
        destination, examine,
        load::load_sound,
        question::{self, Question},
    },
    traffic::{
        seen::Seen,
        story::{Story, indented},
    },
};

/// Adds where the policy is written, and the smallest change that would allow the request, as far as the policies can be
/// read here.
pub(super) fn add(story: &mut Story, resources: &[PathBuf]) {
    let Some(stop) = &mut story.stopped else { return };
    let hop = stop.hop.checked_sub(1).and_then(|at| story.hops.get(at));
    let Some(seen) = hop.and_then(|hop| hop.destination.as_ref()).filter(|seen| seen.denied) else { return };
    let folders: Vec<_> = resources.iter().map(|path| format!(" --resources {}", path.display())).collect();
    let Ok(resources) = load_sound(resources) else {
        stop.mend.push("The policies cannot be read here: name them by --resources.".to_owned());
        return;
    };
    if stop.place.is_empty() {
        stop.place = place(&resources, &stop.policy).unwrap_or_default();
    }
    let changes = question(seen, resources).and_then(|question| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let answer = question::answer(question, now).ok()?;
        if answer.allowed {
            return Some(vec!["By the policies as they are written now it would be allowed.".to_owned()]);
        }
        let told = |change: Change| format!("\n{}\n\n{}", change.what, indented(&change.yaml));
        Some(answer.changes.into_iter().map(told).collect())
    });
    stop.mend.extend(changes.unwrap_or_default());
    let identity = |seen: &Seen| seen.from.as_ref().and_then(|end| end.identity.clone());
    if let Some(from) = identity(seen) {
        let workload = seen.told_by.as_str();
        let port = seen
            .destination
            .parse::<SocketAddr>()
            .map(|it| format!(" --port {}", it.port()))
            .unwrap_or_default();
        let request = if seen.method.is_empty() {
            String::new()
        } else {
            format!(" {} {}", quoted(&seen.method), quoted(&seen.path))
        };
        stop.mend.push(format!(
            "\nPolicy by policy: douane policy explain --from {from} --workload {workload}{port}{}{request}",
            folders.concat()
        ));
    }
}

// For a shell: the line is there to be copied, and a client chose this part of it.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn place(resources: &[Resource], policy: &str) -> Option<String> {
    let (name, rule) = match policy.rsplit_once(" rule ") {
        Some((name, rule)) => (name, rule.parse().ok()),
        None => (policy, None),
    };
    examine::place(resources, name, rule)
}

// `None`: something of it is not known here.
fn question(seen: &Seen, resources: Vec<Resource>) -> Option<Question> {
    let config = Config::default();
    let mut settings = config.mesh();
    let to = seen.to.as_ref()?.identity.as_ref()?.parse::<WorkloadId>().ok()?;
    settings.trust_domain = to.trust_domain().clone();
    let mesh = Mesh {
        trust_domain: settings.trust_domain,
        aliases: settings.trust_domain_aliases,
        normalization: settings.path_normalization,
        law: config.law(),
    };
    let asked_for: SocketAddr = seen.destination.parse().ok()?;
    let destination = destination::of_name(&resources, &seen.told_by, Some(asked_for.port())).ok()?;
    let source =
        seen.peer_address.parse::<SocketAddr>().map_or(SOMEWHERE, |address| address.ip().to_canonical());
    let peer = seen.from.as_ref()?.identity.as_ref().and_then(|id| id.parse().ok());
    let head = (!seen.method.is_empty()).then(|| Head {
        version: if seen.protocol == "h2" { Version::HTTP_2 } else { Version::HTTP_11 },
        method: seen.method.clone(),
        host: Some(destination.host.clone()),
        target: seen.path.clone(),
        headers: Vec::new(),
    });
    let remote: IpAddr = source;
    let asked = Asked { peer, source, remote, destination: asked_for, sni: None, head, ext_authz: None };
    Some(Question { resources, mesh, destination, asked, claims: None })
}
