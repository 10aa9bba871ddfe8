//! How a role ends: SIGTERM or SIGINT. Said explicitly, since the first process of a container gets no default action.

use std::{convert::Infallible, process::ExitCode};

use tokio::signal::unix::{SignalKind, signal};

/// Serves until somebody asks us to stop.
pub(crate) async fn serve_until_asked(
    server: impl Future<Output = anyhow::Result<Infallible>>,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        ended = server => match ended? {},
        () = asked() => Ok(ExitCode::SUCCESS),
    }
}

/// Resolves at SIGTERM or SIGINT.
pub(crate) async fn asked() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => signals.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
