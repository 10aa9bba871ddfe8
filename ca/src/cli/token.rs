//! `douane ca token create|list|revoke`: join tokens, for machines without a cluster, and who came by them.
//!
//! Meets a running control plane in its state folder: a new token is known at once, a revoked one never again.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;
use douane_proto::id::WorkloadId;
use serde_json::json;

use super::{
    audit::Output,
    print::{print, print_text, remark},
};
use crate::{
    attest::{self, Listed},
    config::{Config, OWN_ACCOUNT, OWN_NAMESPACE},
    state::StateFolder,
};

/// Expiry is written in whole seconds.
const MIN_TOKEN_LIFE: Duration = Duration::from_secs(1);
/// A join token that nobody used for a day was forgotten.
const MAX_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A shorter beginning of a name is too easily another's.
const MIN_NAME: usize = 4;

#[derive(Subcommand)]
pub(super) enum Token {
    /// Make a token that can be used once; it is printed and never stored.
    Create {
        /// The state folder of the control plane.
        #[arg(long, env = "DOUANE_DIR")]
        dir: PathBuf,
        /// Whose token: NAMESPACE/SERVICE-ACCOUNT.
        #[arg(long)]
        identity: String,
        /// How long it may wait to be used.
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Show tokens that wait, and who came by one and renews by certificate. Never the tokens themselves.
    List {
        /// The state folder of the control plane.
        #[arg(long, env = "DOUANE_DIR")]
        dir: PathBuf,
        /// How to print.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// End tokens that wait, and the renewals of who came by one. Certificates that are out live to their end.
    Revoke {
        /// The state folder of the control plane.
        #[arg(long, env = "DOUANE_DIR")]
        dir: PathBuf,
        /// What `list` calls it, or how that begins.
        #[arg(required_unless_present = "identity")]
        name: Option<String>,
        /// All of this identity: NAMESPACE/SERVICE-ACCOUNT.
        #[arg(long, conflicts_with = "name")]
        identity: Option<String>,
    },
}

pub(super) fn run(command: Token) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    match command {
        Token::Create { dir, identity, ttl } => create(&StateFolder::new(dir), &identity, ttl, now),
        Token::List { dir, output } => list(&StateFolder::new(dir), output, now),
        Token::Revoke { dir, name, identity } => {
            revoke(&StateFolder::new(dir), name.as_deref(), identity.as_deref(), now)
        }
    }
}

fn create(state: &StateFolder, identity: &str, life: Duration, now: u64) -> Result<()> {
    if !(MIN_TOKEN_LIFE..=MAX_TOKEN_LIFE).contains(&life) {
        bail!("--ttl must be from 1s to {}", humantime::format_duration(MAX_TOKEN_LIFE));
    }
    let (namespace, account) = names(identity)?;
    // The control plane adds its own trust domain; any valid one does to check the two names.
    let domain = Config::default().trust_domain;
    let id = WorkloadId::new(&domain, namespace, account).context("--identity")?;
    if (namespace, account) == (OWN_NAMESPACE, OWN_ACCOUNT) {
        bail!("--identity {identity} is the control plane's own identity, which is not given away");
    }
    let token = attest::create_join_token(state, &id, life, now)?;
    print(&token)
}

fn names(identity: &str) -> Result<(&str, &str)> {
    identity
        .split_once('/')
        .ok_or_else(|| anyhow!("--identity must be NAMESPACE/SERVICE-ACCOUNT, such as shop/web"))
}

fn list(state: &StateFolder, output: Output, now: u64) -> Result<()> {
    let all = attest::list(state, now);
    match output {
        Output::Json => {
            let all: Vec<_> = all.iter().map(object).collect();
            print(&json!(all).to_string())
        }
        Output::Text => {
            let mut text = format!("{:14}{:10}{:22}IDENTITY\n", "NAME", "STATE", "UNTIL");
            text.extend(all.iter().map(|one| {
                let identity = format!("{}/{}", one.namespace, one.service_account);
                format!("{:14}{:10}{:22}{identity}\n", one.name, one.standing.word(), date(one.ends))
            }));
            print_text(&text)
        }
    }
}

fn object(one: &Listed) -> serde_json::Value {
    json!({
        "name": one.name,
        "identity": format!("{}/{}", one.namespace, one.service_account),
        "state": one.standing.word(),
        "until": date(one.ends),
    })
}

fn revoke(state: &StateFolder, name: Option<&str>, identity: Option<&str>, now: u64) -> Result<()> {
    let all = attest::list(state, now);
    let meant: Vec<_> = match (name, identity) {
        (Some(name), _) if name.len() < MIN_NAME => bail!("give at least {MIN_NAME} digits of the name"),
        (Some(name), _) => all.iter().filter(|one| one.name.starts_with(name)).collect(),
        (None, Some(identity)) => {
            let (namespace, account) = names(identity)?;
            let is_meant = |one: &&Listed| {
                (one.namespace.as_str(), one.service_account.as_str()) == (namespace, account)
            };
            all.iter().filter(is_meant).collect()
        }
        (None, None) => bail!("give a name, or --identity"),
    };
    match (meant.len(), name) {
        (0, _) => bail!("there is no such token; see `douane ca token list`"),
        (2.., Some(name)) => bail!("several names begin with {name}; give more digits"),
        _ => {}
    }
    for one in meant {
        attest::revoke(state, one)?;
        remark(&format!("revoked {} of {}/{}", one.name, one.namespace, one.service_account));
    }
    Ok(())
}

fn date(seconds: i64) -> String {
    // The last second of the year 9999: what a file says must not be more than can be written.
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(253_402_300_799));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
