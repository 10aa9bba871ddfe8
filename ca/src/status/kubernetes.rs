//! Writes conditions into the cluster: only what is news, only over the state that was seen, and never faster than an API
//! server bears beside its other work.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::told::{FIGURES_EVERY, PutOff, Update, Written, due};
use crate::{
    discovery::{Index, Notes},
    kubernetes::Client,
    policy::asked::Mesh,
};

/// After a change, so long more is waited for: `kubectl apply` of a folder is many.
const SETTLE: Duration = Duration::from_millis(500);
/// Between two writes: at most ten a second, however many policies there are.
const BETWEEN: Duration = Duration::from_millis(100);
/// After so many writes what is to be written is looked at anew: much may have changed meanwhile.
const AT_ONCE: usize = 50;
/// An API server that refuses, or is away, is asked again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// One write.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Who writes, as `managedFields` says.
const MANAGER: &str = "douane";

/// What became of a write.
enum Wrote {
    /// It stands there.
    Yes,
    /// The object is another one by now; its watch tells.
    Overtaken,
}

/// Tells authors what is made of what they wrote, until `stop`.
pub async fn keep_told(
    client: Client,
    (mut notes, mut index): (watch::Receiver<Arc<Notes>>, watch::Receiver<Arc<Index>>),
    mesh: Arc<Mesh>,
    stop: CancellationToken,
) {
    let (mut written, mut failing) = (Written::default(), None);
    loop {
        let seen = (Arc::clone(&notes.borrow_and_update()), Arc::clone(&index.borrow_and_update()));
        written.keep(&seen.0);
        let begun = Instant::now();
        let judged = Arc::clone(&mesh);
        // Thousands of laws are compared with each other: off the reactor.
        let planned = tokio::task::spawn_blocking(move || {
            let planned = due((&seen.0, &seen.1), &judged, &written, (begun, SystemTime::now()));
            (planned, written)
        });
        let Ok(((updates, put_off), back)) = planned.await else {
            tracing::error!("what authors are to be told could not be put together; nobody is told any more");
            return;
        };
        written = back;
        let took = begun.elapsed();
        let (pause, failure) = tokio::select! {
            () = stop.cancelled() => return,
            paused = write_all(&client, &updates, &mut written) => paused,
        };
        if let Some(error) = failure.as_ref().filter(|error| failing.as_ref() != Some(*error)) {
            tracing::warn!(error, "the status of a policy cannot be written; it is tried again");
        }
        failing = failure;
        let pause = pause.or((put_off == PutOff::Figures).then_some(FIGURES_EVERY));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = notes.changed() => if changed.is_err() { return },
            changed = index.changed() => if changed.is_err() { return },
            () = rest(pause) => {}
        }
        // What takes long is done seldom.
        tokio::select! {
            () = stop.cancelled() => return,
            () = time::sleep(SETTLE.max(took * 9)) => {}
        }
    }
}

// When to look again even if nothing changes, and what went wrong.
async fn write_all(
    client: &Client,
    updates: &[Update],
    written: &mut Written,
) -> (Option<Duration>, Option<String>) {
    for update in updates.iter().take(AT_ONCE) {
        match time::timeout(WRITE_LIMIT, write(client, update)).await {
            Ok(Ok(Wrote::Yes)) => written.note(update, Instant::now()),
            Ok(Ok(Wrote::Overtaken)) => {}
            Ok(Err(error)) => return (Some(TRY_AGAIN), Some(error.to_string())),
            Err(_) => return (Some(TRY_AGAIN), Some("the API server does not answer in time".to_owned())),
        }
        time::sleep(BETWEEN).await;
    }
    ((updates.len() > AT_ONCE).then_some(Duration::ZERO), None)
}

async fn rest(pause: Option<Duration>) {
    match pause {
        Some(pause) => time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

async fn write(client: &Client, update: &Update) -> Result<Wrote, kube::Error> {
    let note = &update.note;
    let body = json!({
        // Over just the state that was seen: others write conditions, too.
        "metadata": {"resourceVersion": note.resource_version},
        "status": {"conditions": update.conditions},
    });
    for version in note.versions {
        let path = format!(
            "/apis/{}/{version}/namespaces/{}/{}/{}/status?fieldManager={MANAGER}",
            note.group, note.namespace, note.plural, note.name
        );
        let request = Request::patch(path).header(header::CONTENT_TYPE, "application/merge-patch+json");
        let request = request.body(body.to_string().into_bytes()).map_err(kube::Error::HttpError)?;
        match client.request::<Value>(request).await {
            Ok(_) => return Ok(Wrote::Yes),
            Err(kube::Error::Api(status)) if status.code == StatusCode::CONFLICT.as_u16() => {
                return Ok(Wrote::Overtaken);
            }
            // Of an older version only, or gone.
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Wrote::Overtaken)
}
