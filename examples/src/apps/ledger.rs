//! The ledger: a protocol that no proxy knows. The server speaks first (a greeting), then answers `ENTRY text` by
//! `OK number`. Connections stay open as long as the client likes.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::apps::{args::Args, serve};

/// A line is at most this long, in bytes.
const LINE: u64 = 16 * 1024;

/// Serves for ever.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<Infallible> {
    let listen = args.parsed("--listen", String::from("[::]:7000"))?;
    args.end()?;

    let entries = Arc::new(AtomicU64::new(0));
    let listener = serve::listen(&listen).await?;
    serve::accept(listener, move |stream, peer| {
        let entries = Arc::clone(&entries);
        async move {
            if let Err(err) = keep(stream, &entries).await {
                eprintln!("connection of {peer}: {err}");
            }
        }
    })
    .await
}

async fn keep(stream: TcpStream, entries: &AtomicU64) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    write.write_all(b"LEDGER 1 ready\n").await?;
    let mut line = String::new();
    loop {
        line.clear();
        let length = (&mut read).take(LINE).read_line(&mut line).await?;
        if length == 0 {
            return Ok(());
        }
        let answer = match line.trim_end().split_once(' ') {
            Some(("ENTRY", _)) => format!("OK {}\n", entries.fetch_add(1, Ordering::Relaxed) + 1),
            _ => String::from("ERR expected ENTRY and a text\n"),
        };
        write.write_all(answer.as_bytes()).await?;
    }
}
