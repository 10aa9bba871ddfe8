//! What a flood of requests does to others: nothing but a wait, and that is said.

use std::time::{Duration, Instant};

use douane_proto::{
    hint,
    wire::{identity_client::IdentityClient, issue_request::Evidence},
};
use tonic::Code;

use crate::{
    plane::Ground,
    sidecar::{channel, request, tls},
};

/// Health answers so fast, half of the time at least: a machine that is busy with other tests may be slow to answer anything
/// for a while; what is tested is that nobody waits for a flood.
const HEALTH_LIMIT: Duration = Duration::from_secs(1);
/// As long as a flood is let in, its next request may be the one that is sent away: a slow machine's budget refills meanwhile.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t6_a_flood_of_one_source_is_told_to_come_back_while_health_answers() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let junk = format!("douane-join-{}", "0".repeat(64));
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let (address, tls, junk) = (plane.address, tls(&bundle, None), junk.clone());
            tokio::spawn(async move {
                let mut client = IdentityClient::new(channel(address, tls).await.unwrap());
                let (request, _) = request(Evidence::JoinToken(junk), 60);
                let (mut asked, mut sent_away, begun) = (0, None, Instant::now());
                while asked < 100 || sent_away.is_none() && begun.elapsed() < FLOOD_LIMIT {
                    let refused = client.issue(request.clone()).await.unwrap_err();
                    if refused.code() == Code::ResourceExhausted {
                        sent_away = Some(refused);
                    }
                    asked += 1;
                }
                sent_away
            })
        })
        .collect();
    let mut health = Vec::new();
    while !flood.iter().all(tokio::task::JoinHandle::is_finished) {
        let asked = Instant::now();
        assert!(plane.page("/livez").await.contains("alive"));
        health.push(asked.elapsed());
    }
    health.sort();
    assert!(health[health.len() / 2] < HEALTH_LIMIT, "health took {health:?}");
    for one in flood {
        let refused = one.await.unwrap().expect("it was sent away");
        assert!(refused.metadata().contains_key(hint::RETRY_AFTER), "{refused:?}");
        assert!(hint::delay(refused.details()).unwrap() >= Duration::from_millis(100));
    }
    let page = plane.page("/metrics").await;
    assert!(page.contains(r#"douane_ca_refused_total{reason="source_budget"}"#), "{page}");
    plane.stop().await;
    let log = douane_ca::audit::verify(&ground.state().join("audit"), None).unwrap();
    assert!(log.faults.is_empty() && log.records < 1000, "{log:?}");
}

#[tokio::test]
async fn figures_say_what_was_issued_how_fast_and_how_long_the_mesh_lives_without_us() {
    let ground = Ground::new();
    let plane = ground.start().await;
    let bundle = ground.state().join("bundle.pem");
    let (request, _) = request(Evidence::ServiceAccountToken(ground.token("shop", "web")), 600);
    crate::sidecar::issue(plane.address, &bundle, request).await.unwrap();
    let budget = crate::plane::eventually("the certificate is counted", async || {
        let page = plane.page("/metrics").await;
        let line = page.lines().find(|line| line.starts_with("douane_ca_outage_budget_seconds"))?;
        line.split(' ').nth(1)?.parse::<i64>().ok().filter(|seconds| *seconds > 0)
    })
    .await;
    assert!((500..=600).contains(&budget), "{budget}");
    let page = plane.page("/metrics").await;
    for figure in
        ["douane_ca_issue_seconds_count 1", "douane_ca_clock_moved_seconds ", "douane_ca_authority_expires"]
    {
        assert!(page.contains(figure), "{figure}: {page}");
    }
    plane.stop().await;
}
