//! `shop load`: a steady stream of requests; at the end, or when asked to stop, one JSON line says how it went.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::apps::{args::Args, call::Client, client::get::path, stop};

#[derive(Default)]
struct Tally {
    total: u64,
    failed: u64,
    first_failure: Option<String>,
    slowest: Duration,
}

/// Runs for the given time; fails if any request did.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<ExitCode> {
    let seconds = args.parsed("--seconds", 10.0_f64)?;
    let rate = args.parsed("--rate", 20.0_f64)?.clamp(0.1, 10_000.0);
    let url = args.word("URL")?;
    args.end()?;

    let client = Arc::new(Client::to(&url)?);
    let path: Arc<str> = path(&url)?.into();
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut running = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = tokio::time::sleep(Duration::from_secs_f64(seconds));
    let asked = stop::asked();
    tokio::pin!(end, asked);
    loop {
        tokio::select! {
            () = &mut end => break,
            () = &mut asked => break,
            _ = ticks.tick() => {
                running.spawn(one(Arc::clone(&client), Arc::clone(&path), Arc::clone(&tally)));
            }
            Some(_) = running.join_next() => {}
        }
    }
    // What is under way counts too.
    while running.join_next().await.is_some() {}

    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    let slowest = tally.slowest.as_secs_f64() * 1000.0;
    println!(
        "{}",
        json!({
            "total": tally.total, "failed": tally.failed, "first_failure": tally.first_failure, "slowest_ms": slowest,
        })
    );
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn one(client: Arc<Client>, path: Arc<str>, tally: Arc<Mutex<Tally>>) {
    let began = Instant::now();
    let answer = client.send(&Method::GET, &path, &HeaderMap::new(), &Bytes::new()).await;
    let failure = match answer {
        Ok(answer) if answer.status().is_success() => None,
        Ok(answer) => {
            Some(format!("{} {}", answer.status(), String::from_utf8_lossy(answer.body()).trim_end()))
        }
        Err(err) => Some(format!("{err:#}")),
    };
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.total += 1;
    tally.slowest = tally.slowest.max(began.elapsed());
    if let Some(failure) = failure {
        tally.failed += 1;
        tally.first_failure.get_or_insert(failure);
    }
}
