//! `douane tap`.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, bail};
use clap::Args;

use super::{Output, Place, figures};
use crate::{
    admin::{Answer, Command, TapFilter, Tapped},
    cli::print::{print_text, remark},
    state::StateFolder,
    traffic::{seen::Seen, story::shown, view::End},
};

#[derive(Args)]
#[command(after_long_help = HELP)]
pub(in crate::cli) struct Tap {
    #[command(flatten)]
    place: Place,
    /// Who asks: NAMESPACE/NAME of a workload, or a SPIFFE ID.
    #[arg(long)]
    from: Option<String>,
    /// Who is asked: the same, or a service.
    #[arg(long)]
    to: Option<String>,
    /// Only these methods; repeatable.
    #[arg(long = "method")]
    methods: Vec<String>,
    /// Only paths that begin so.
    #[arg(long)]
    path: Option<String>,
    /// Only this status, such as 404, or such statuses, such as 5xx.
    #[arg(long, value_parser = status)]
    status: Option<(u16, u16)>,
    /// Only what the law denied.
    #[arg(long)]
    denied: bool,
    /// Only what failed or was denied.
    #[arg(long)]
    failed: bool,
    /// As both ends see it, not once.
    #[arg(long)]
    both_ends: bool,
    /// End after so many.
    #[arg(long)]
    max: Option<u64>,
    /// How it is printed.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

const HELP: &str = "\
Examples:
  douane tap --dir /var/lib/douane --to shop/orders              live, until Ctrl-C
  douane tap --from shop/web --to shop/orders --method POST --path /orders
  douane tap --denied --max 1 -o json                            the next denial
  douane tap --status 5xx                                        whatever fails, wherever

Asked are the sidecars that are connected to the control plane: of several replicas in a cluster to the one that is asked, on a
shared folder to the one that leads.

Each request or stream is told when it ends, by the sidecar of whoever was asked (by the caller's where that one has none
or was not reached), a hundred a second of each sidecar at most; how many more there were is said on the standard error.
No header but x-request-id, no body and no query string ever leaves a sidecar.

JSON: one object a line: end (source or destination), toldBy, from and to {name, kind, identity}, timeUs, durationMs,
traceId, spanId, parentId, requestId, protocol, method, path, status, grpcStatus, peerAddress, destination, service, tls, decision,
denied, policy, place (file:line), reason, refusal, hint, bytesIn, bytesOut. What is unknown is absent.";

/// Asks and prints until it is enough.
pub(in crate::cli) fn run(asked: &Tap) -> Result<()> {
    let filter = TapFilter {
        from: asked.from.clone(),
        to: asked.to.clone(),
        methods: asked.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
        path: asked.path.clone(),
        status: asked.status,
        denied: asked.denied,
        failed: asked.failed,
        both_ends: asked.both_ends,
    };
    let folder = StateFolder::new(&asked.place.dir);
    let mut told = 0_u64;
    for answer in Tapped::open(&folder, &Command::Tap(filter))? {
        match answer? {
            Answer::Seen(seen) => {
                match asked.output {
                    Output::Json => print_text(&format!("{}\n", serde_json::to_string(&seen)?))?,
                    Output::Text => print_text(&line(&seen))?,
                }
                told += 1;
                if asked.max.is_some_and(|max| told >= max) {
                    return Ok(());
                }
            }
            Answer::LeftOut(many) => remark(&format!("{many} more were seen than are told: ask for less")),
            Answer::Refused(reason) => bail!("{reason}"),
            _ => bail!("the control plane answered something else; is it of another version?"),
        }
    }
    bail!("the control plane has ended the tap")
}

fn line(seen: &Seen) -> String {
    let time = UNIX_EPOCH + Duration::from_micros(seen.time_us);
    let time = humantime::format_rfc3339_millis(time).to_string();
    let name = |end: &Option<End>| end.as_ref().map_or("unknown", |end| &end.name).to_owned();
    let status = seen.status.map_or_else(|| figures::NONE.to_owned(), |status| status.to_string());
    let tls = if seen.tls.is_empty() { "NO TLS" } else { "mtls" };
    let ends = format!("{} -> {}", name(&seen.from), name(&seen.to));
    let took = figures::milliseconds(Some(seen.duration_ms));
    let mut text =
        format!("{}  {ends}  {}  {status}  {took}  {tls}", time.get(11..23).unwrap_or(&time), seen.what());
    if !seen.refusal.is_empty() {
        let place = if seen.place.is_empty() { String::new() } else { format!(" {}", seen.place) };
        text.push_str(&format!("  {}{place}: {}", seen.refusal, seen.reason));
    }
    // What a client wrote moves no cursor.
    format!("{}\n", shown(&text))
}

fn status(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is no status: write 404, or 4xx");
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().map_err(|_| wrong())?;
        return if (1..=5).contains(&class) { Ok((class * 100, class * 100 + 99)) } else { Err(wrong()) };
    }
    match text.parse() {
        Ok(status) if (100..=599).contains(&status) => Ok((status, status)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_or_a_hundred() {
        assert_eq!(status("404"), Ok((404, 404)));
        assert_eq!(status("5xx"), Ok((500, 599)));
        for wrong in ["", "xx", "6xx", "99", "600", "ok"] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_says_who_what_and_why_and_moves_no_cursor() {
        let seen = Seen {
            time_us: 1_000_500,
            duration_ms: 1.25,
            method: "GET".to_owned(),
            path: "/a\u{1b}[2J".to_owned(),
            status: Some(403),
            refusal: "denied".to_owned(),
            reason: "denied: policy shop/a rule 1: no".to_owned(),
            place: "shop.yaml:7".to_owned(),
            ..Seen::default()
        };
        let line = line(&seen);
        assert_eq!(
            line,
            "00:00:01.000  unknown -> unknown  GET /a\\u{1b}[2J  403  1.2ms  NO TLS  denied shop.yaml:7: denied: \
             policy shop/a rule 1: no\n"
        );
    }
}
