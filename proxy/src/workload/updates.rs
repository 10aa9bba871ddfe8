//! A stream of the Workload API: the whole state at once, and again whenever it changes. Who does not read is left
//! behind by no more than one message, and not for long.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// What a client's stream yields.
pub(super) type Updates<T> = ReceiverStream<Result<T, Status>>;

/// Something whose state is told.
pub(super) trait Told: Send + 'static {
    /// The whole state.
    type State: Send + 'static;

    /// The state as it is now; an error ends the stream.
    fn state(&mut self) -> impl Future<Output = Result<Self::State, Status>> + Send;

    /// Waits until it may be another.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// How long a client may leave what we sent unread, and what happens then.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) limit: Duration,
    /// Ends the connection.
    pub(super) over: CancellationToken,
}

/// Tells `told` until the client goes.
///
/// # Errors
/// There is no first state.
pub(super) async fn tell<T: Told>(mut told: T, patience: Patience) -> Result<Updates<T::State>, Status> {
    let mut next = Ok(told.state().await?);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let is_last = next.is_err();
            if sender.send(next).await.is_err() || is_last {
                return;
            }
            // There is room again when it was taken.
            match tokio::time::timeout(patience.limit, sender.reserve()).await {
                Ok(Ok(room)) => drop(room),
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::warn!("a client of the workload socket does not read; it is left");
                    return patience.over.cancel();
                }
            }
            tokio::select! {
                () = told.changed() => {}
                () = sender.closed() => return,
            }
            next = told.state().await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}
