//! The end of a connection whose other end may still be sending: it is heard out for a moment, so that it reads what was
//! said last.
//!
//! Knows not what was said.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// So long somebody who is still sending may take to read the answer.
const LINGER: Duration = Duration::from_secs(1);
const READ: usize = 4 * 1024;

/// Ends our half and reads what still comes: closed with bytes unread, the kernel would reset the connection, and the
/// other end could lose what it has not read yet.
pub async fn linger(socket: &mut TcpStream) {
    let reading = async {
        let mut unwanted = [0; READ];
        if socket.shutdown().await.is_ok() {
            while let Ok(1..) = socket.read(&mut unwanted).await {}
        }
    };
    // Whoever takes longer has had its time.
    let _ = tokio::time::timeout(LINGER, Box::pin(reading)).await;
}
