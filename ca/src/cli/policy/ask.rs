//! `douane policy can-i` and `douane policy explain`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use douane_proto::{id::WorkloadId, policy, resource::Resource};
use http::Version;

use super::{
    answer::{NO, Output, YES, now, print_json, unanswered},
    settings::Settings,
};
use crate::{
    cli::print::print_text,
    policy::{
        asked::{Asked, Head, Mesh, Protocol, SOMEWHERE, Workload},
        destination::{self, Destination},
        load::load_sound,
        question::{self, Depth, Question},
    },
};

/// The workload's own address, of the same kind as [`SOMEWHERE`].
const DESTINATION: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

#[derive(Args)]
pub(in crate::cli) struct Ask {
    /// Who asks: NAMESPACE/SERVICE-ACCOUNT, or a whole identity.
    #[arg(long, required_unless_present = "plaintext", conflicts_with = "plaintext")]
    from: Option<String>,
    /// Nobody that could be known asks: a peer without a certificate.
    #[arg(long)]
    plaintext: bool,
    /// Who is asked: SERVICE[.NAMESPACE][:PORT].
    #[arg(long, required_unless_present = "workload", conflicts_with = "workload")]
    to: Option<String>,
    /// Who is asked: NAMESPACE/NAME of a Pod or Deployment; of anything, with --label.
    #[arg(long)]
    workload: Option<String>,
    /// A label of the workload, where no manifest says them: KEY=VALUE; repeatable.
    #[arg(long = "label", requires = "workload", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// The workload's port.
    #[arg(long, requires = "workload")]
    port: Option<u16>,
    /// Files or folders of manifests, as the control plane reads them; repeatable; - is the standard input.
    #[arg(long, required = true)]
    resources: Vec<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    /// A header: NAME=VALUE; repeatable.
    #[arg(long = "header", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// The host that the request names [default: the service's own].
    #[arg(long)]
    host: Option<String>,
    /// What a token claims that counts as verified: a JSON object with iss and sub.
    #[arg(long, value_name = "JSON")]
    token_claims: Option<String>,
    /// The address of the peer.
    #[arg(long)]
    source_ip: Option<IpAddr>,
    /// The server name of the handshake.
    #[arg(long)]
    sni: Option<String>,
    /// What external authorizers answer where one is asked [default: none can be reached].
    #[arg(long, value_enum)]
    ext_authz: Option<Authorizer>,
    /// How the answer is written.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// The method; without method and path an opaque TCP connection is meant.
    #[arg(requires = "path")]
    method: Option<String>,
    /// The path, with its query.
    path: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Authorizer {
    Allow,
    Deny,
}

pub(super) const CAN_I_HELP: &str = "\
The answer of the sidecar itself, offline: the verdict, the policy and rule that decided with file and line, or \
the first field that failed in the nearest rule, and the smallest YAML that would change the verdict.

Over HTTP, over opaque TCP, from a stranger, and with a token:

  douane policy can-i --resources mesh/ --from shop/web --to orders.shop:80 \\
      GET /orders/1
  douane policy can-i --resources mesh/ --from shop/web --to ledger.shop:7000
  douane policy can-i --resources mesh/ --plaintext --to orders.shop:80 GET /
  douane policy can-i --resources mesh/ --from shop/web --to orders.shop:80 \\
      --token-claims '{\"iss\": \"https://issuer\", \"sub\": \"alice\"}' POST /orders

Exit codes: 0 yes, 1 no, 2 there is no answer (a file is refused, nothing is called so).";

pub(super) const EXPLAIN_HELP: &str = "\
As can-i, and what each policy that selects the workload makes of the request, rule by rule, in the order in \
which they are asked (CUSTOM, AUDIT, DENY, ALLOW).

  douane policy explain --resources mesh/ --from shop/web --to orders.shop:80 \\
      DELETE /orders/1

Exit codes: 0 it is allowed, 1 it is not, 2 there is no answer.";

/// Asks.
pub(super) fn run(asked: &Ask, depth: Depth) -> Result<ExitCode> {
    let answer = question(asked).and_then(|question| Ok(question::answer(question, now()?)?));
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Ok(unanswered(&format!("{error:#}"))),
    };
    match asked.output {
        Output::Json => print_json(&answer)?,
        Output::Text => print_text(&answer.text(depth))?,
    }
    Ok(ExitCode::from(if answer.allowed { YES } else { NO }))
}

fn question(flags: &Ask) -> Result<Question> {
    let mesh = flags.settings.mesh()?;
    let resources = load_sound(&flags.resources)?;
    let peer = flags.from.as_ref().map(|from| identity(from, &mesh)).transpose()?;
    let destination = destination(flags, &resources, peer.as_ref())?;
    let claims = flags.token_claims.as_ref().map(|text| serde_json::from_str(text));
    let claims = claims.transpose().context("--token-claims is no JSON object")?;
    let source = flags.source_ip.unwrap_or(SOMEWHERE);
    let asked = Asked {
        peer,
        source,
        remote: source,
        destination: SocketAddr::new(DESTINATION, destination.workload.port),
        sni: flags.sni.clone(),
        head: head(flags, &destination),
        ext_authz: flags.ext_authz.map(|answer| match answer {
            Authorizer::Allow => policy::Answer::Allow,
            Authorizer::Deny => policy::Answer::Deny,
        }),
    };
    Ok(Question { resources, mesh, destination, asked, claims })
}

fn identity(from: &str, mesh: &Mesh) -> Result<WorkloadId> {
    let bare = from.strip_prefix("spiffe://").unwrap_or(from);
    match bare.split('/').collect::<Vec<_>>().as_slice() {
        [namespace, account] => WorkloadId::new(&mesh.trust_domain, namespace, account).context("--from"),
        [_, "ns", _, "sa", _] => format!("spiffe://{bare}").parse().context("--from"),
        _ => bail!("--from must be NAMESPACE/SERVICE-ACCOUNT, such as shop/web"),
    }
}

fn destination(flags: &Ask, resources: &[Resource], peer: Option<&WorkloadId>) -> Result<Destination> {
    if let Some(to) = &flags.to {
        let near = peer.map_or("default", WorkloadId::namespace);
        return Ok(destination::of_service(resources, to, near)?);
    }
    let key = flags.workload.as_ref().ok_or_else(|| anyhow!("give --to or --workload"))?;
    if flags.labels.is_empty() {
        return Ok(destination::of_name(resources, key, flags.port)?);
    }
    let (namespace, name) =
        key.split_once('/').ok_or_else(|| anyhow!("--workload must be NAMESPACE/NAME"))?;
    let labels: BTreeMap<String, String> = flags.labels.iter().cloned().collect();
    let workload = Workload {
        namespace: namespace.to_owned(),
        labels,
        service_account: name.to_owned(),
        port: flags.port.unwrap_or(8080),
        protocol: Protocol::Http,
    };
    let host = format!("{name}.{namespace}.svc.cluster.local");
    Ok(Destination { workload, name: key.clone(), host })
}

fn head(flags: &Ask, destination: &Destination) -> Option<Head> {
    let (method, path) = (flags.method.as_ref()?, flags.path.as_ref()?);
    Some(Head {
        version: Version::HTTP_11,
        method: method.clone(),
        host: Some(flags.host.clone().unwrap_or_else(|| destination.host.clone())),
        target: path.clone(),
        headers: flags.headers.clone(),
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}
