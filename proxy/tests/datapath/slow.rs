//! Applications that read slowly, or not at all: what that makes the sidecars hold, and what their neighbours notice.

use std::time::Duration;

use douane_proto::mesh::Protocol;
use douane_proxy::budget;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    apps::greet_and_echo,
    pods::{Shop, eventually, run, vip},
};

/// Long for a loopback that takes bytes at once.
const STUCK: Duration = Duration::from_millis(500);

async fn greeted(shop: &Shop) -> TcpStream {
    let mut stream = shop.web.connect(vip()).await;
    let mut greeting = [0; 6];
    stream.read_exact(&mut greeting).await.unwrap();
    stream
}

#[test]
fn a_client_that_does_not_read_makes_the_sidecars_hold_little_and_harms_no_neighbour() {
    run(async {
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let before = budget::held();
        let mut slow = Vec::new();
        for _ in 0..3 {
            // Echoed, and never read: both ways fill up.
            let mut stream = greeted(&shop).await;
            let flood = vec![7; 1 << 20];
            while timeout(STUCK, stream.write_all(&flood)).await.is_ok() {}
            slow.push(stream);
        }
        let held = budget::held() - before;

        let mut neighbour = greeted(&shop).await;
        neighbour.write_all(b"still here").await.unwrap();
        let mut told = [0; 10];
        neighbour.read_exact(&mut told).await.unwrap();

        assert_eq!(&told, b"still here");
        // For each of them and each way a chunk and a cork; windows may have grown before they got stuck.
        assert!(held < 40 << 20, "{held}");
        drop(slow);
        drop(neighbour);
        eventually("it is given back", || budget::held() <= before + (30 << 20)).await;
    });
}

#[test]
fn twenty_megabytes_arrive_whole_both_ways_where_the_budget_is_tight() {
    run(async {
        budget::fix(1 << 20);
        let shop = Shop::open(Protocol::Tcp, greet_and_echo).await;
        let stream = greeted(&shop).await;
        // From now on nothing new would begin; what runs goes on.
        let _crowd = budget::hold(1 << 20);
        let (mut read, mut write) = stream.into_split();
        let sent: Vec<u8> = (0..20_000_000_u32).map(|number| ((number * 7) >> 3) as u8).collect();

        let mut told = Vec::new();
        let sending = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let (_, ended) = tokio::join!(sending, read.read_to_end(&mut told));

        ended.unwrap();
        assert!(told == sent, "{} of {}", told.len(), sent.len());
    });
}
