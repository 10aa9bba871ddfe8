//! An application that answers before it has read the request, and goes: its answer reaches the client whole.

use douane_proto::mesh::Protocol;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_local,
};

use crate::pods::{Shop, run, vip};

// As much as the kernel hands over at once: what it still has to send goes with a reset.
const ANSWER: usize = 30_000;
const UPLOAD: usize = 20_000_000;

/// Reads a head, answers with an error and a long page, and goes without having read the body: the kernel then resets.
async fn answers_early(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap() == 0 {
            return;
        }
    }
    let answer = format!(
        "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: {ANSWER}\r\n\r\n{}",
        "x".repeat(ANSWER)
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[test]
fn an_early_answer_to_a_large_upload_reaches_the_client_whole() {
    run(async {
        for protocol in [Protocol::Http1, Protocol::Undeclared] {
            let shop = Shop::open(protocol, answers_early).await;
            for _ in 0..5 {
                let (mut read, mut write) = shop.web.connect(vip()).await.into_split();
                spawn_local(async move {
                    let head = format!("POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: {UPLOAD}\r\n\r\n");
                    let _ = write.write_all(head.as_bytes()).await;
                    // Whether all of it is wanted is not the client's business.
                    let _ = write.write_all(&vec![b'u'; UPLOAD]).await;
                });
                let mut told = Vec::new();

                let _ = read.read_to_end(&mut told).await;

                let told = String::from_utf8_lossy(&told);
                assert!(told.starts_with("HTTP/1.1 413 "), "{}", &told[..told.len().min(200)]);
                let page = told.split_once("\r\n\r\n").map(|(_, page)| page.len());
                assert_eq!(page, Some(ANSWER));
            }
        }
    });
}
