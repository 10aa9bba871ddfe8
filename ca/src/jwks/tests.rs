//! Key sets of an issuer that answers, moves, misbehaves and goes away.

use std::sync::Mutex;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time,
};

use super::*;
use crate::{fetch::Plaintext, state::StateFolder};

const EC: &str = r#""kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;

/// A server whose answer can be changed; `None` hangs up.
struct Issuer {
    address: std::net::SocketAddr,
    answer: Arc<Mutex<Option<Vec<u8>>>>,
    asked: watch::Receiver<usize>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let (count, asked) = watch::channel(0);
        let answers = Arc::clone(&answer);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = answers.lock().unwrap().clone();
                count.send_modify(|count| *count += 1);
                tokio::spawn(async move {
                    let mut request = [0; 2048];
                    let _ = stream.read(&mut request).await;
                    if let Some(answer) = answer {
                        // The reader may have had enough before the end.
                        let _ = stream.write_all(&answer).await;
                    }
                });
            }
        });
        Self { address, answer, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn says(&self, body: &str) {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        *self.answer.lock().unwrap() = Some(answer.into_bytes());
    }

    fn says_raw(&self, answer: &str) {
        *self.answer.lock().unwrap() = Some(answer.as_bytes().to_vec());
    }

    /// Waits until it was asked twice more: the answer to the first was taken when the second came.
    async fn was_asked_again(&mut self) {
        let now = *self.asked.borrow_and_update();
        let asked = self.asked.wait_for(|count| *count >= now + 2);
        time::timeout(Duration::from_secs(20), asked).await.expect("it is asked").unwrap();
    }
}

fn keys(id: &str) -> String {
    format!(r#"{{"keys":[{{"kid":"{id}",{EC}}}]}}"#)
}

fn terms(allowed: &[&str]) -> Terms {
    let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
    Terms {
        guard: Guard::new(allowed, Vec::new(), Plaintext::Allowed),
        tls: None,
        refresh_every: Duration::from_millis(50),
        keep_for: Duration::from_secs(3600),
        kept: Kept::new(&StateFolder::new(tempfile::tempdir().unwrap().keep())),
    }
}

fn fetching(terms: Terms, sources: &[KeySource]) -> (Keyring, Arc<Metrics>, tokio_util::sync::DropGuard) {
    let metrics = Arc::new(Metrics::new());
    let (fetcher, keyring) = Fetcher::new(terms, Arc::clone(&metrics));
    keyring.want(sources.iter().map(|source| (source.clone(), Duration::from_millis(500))).collect());
    let stop = CancellationToken::new();
    tokio::spawn(fetcher.run(stop.clone()));
    (keyring, metrics, stop.drop_guard())
}

async fn eventually(keyring: &mut Keyring, source: &KeySource, id: Option<&str>) {
    let holds = async {
        loop {
            let known = keyring.known();
            let found = known.get(source);
            if found.is_some() == id.is_some() && id.is_none_or(|id| found.unwrap().contains(id)) {
                return;
            }
            keyring.changed().await;
        }
    };
    time::timeout(Duration::from_secs(20), holds).await.expect("the key set");
}

#[tokio::test]
async fn a_set_is_fetched_refreshed_and_kept_whatever_its_issuer_does_then() {
    let mut issuer = Issuer::start().await;
    issuer.says(&keys("first"));
    let source = KeySource::Set(issuer.url());
    let (mut keyring, metrics, _stop) = fetching(terms(&["127.0.0.1/32"]), std::slice::from_ref(&source));
    eventually(&mut keyring, &source, Some("first")).await;
    issuer.says(&keys("second"));
    eventually(&mut keyring, &source, Some("second")).await;

    let huge = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(300 * 1024));
    let slow = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    let forbidden =
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\ncontent-length: 0\r\n\r\n";
    for answer in [&*huge, slow, forbidden, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope", "garbage"] {
        issuer.says_raw(answer);
        issuer.was_asked_again().await;
        assert!(keyring.known().get(&source).unwrap().contains("second"), "{answer:.60}");
    }
    *issuer.answer.lock().unwrap() = None;
    issuer.was_asked_again().await;
    assert!(keyring.known().get(&source).unwrap().contains("second"), "down");
    let page = metrics.text();
    assert!(page.contains("jwks_sets{state=\"old\"} 1"), "{page}");
    assert!(page.contains("jwks_fetches_total{outcome=\"failed\"}"), "{page}");

    issuer.says(&keys("third"));
    eventually(&mut keyring, &source, Some("third")).await;
}

#[tokio::test]
async fn a_set_that_cannot_be_fetched_for_too_long_counts_no_more() {
    let issuer = Issuer::start().await;
    issuer.says(&keys("first"));
    let source = KeySource::Set(issuer.url());
    let terms = Terms { keep_for: Duration::ZERO, ..terms(&["127.0.0.1/32"]) };
    let (mut keyring, _, _stop) = fetching(terms, std::slice::from_ref(&source));
    eventually(&mut keyring, &source, Some("first")).await;
    *issuer.answer.lock().unwrap() = None;
    eventually(&mut keyring, &source, None).await;
}

#[tokio::test]
async fn a_set_is_kept_no_longer_when_its_time_limit_changes() {
    let mut issuer = Issuer::start().await;
    issuer.says(&keys("first"));
    let source = KeySource::Set(issuer.url());
    let terms = Terms { keep_for: Duration::from_secs(1), ..terms(&["127.0.0.1/32"]) };
    let (mut keyring, _, _stop) = fetching(terms, std::slice::from_ref(&source));
    eventually(&mut keyring, &source, Some("first")).await;
    *issuer.answer.lock().unwrap() = None;
    issuer.was_asked_again().await;
    keyring.want([(source.clone(), Duration::from_millis(400))].into());
    eventually(&mut keyring, &source, None).await;
}

#[tokio::test]
async fn a_set_outlives_the_control_plane_that_fetched_it_but_not_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::new(&StateFolder::new(folder.path()));
    let terms = |keep_for| Terms { kept: kept.clone(), keep_for, ..terms(&["127.0.0.1/32"]) };
    let long = Duration::from_secs(3600);
    let mut issuer = Issuer::start().await;
    issuer.says(&keys("first"));
    let source = KeySource::Set(issuer.url());
    let (_keyring, _, first) = fetching(terms(long), std::slice::from_ref(&source));
    issuer.was_asked_again().await;
    drop(first);
    *issuer.answer.lock().unwrap() = None;

    let (mut keyring, _, second) = fetching(terms(long), std::slice::from_ref(&source));
    assert!(keyring.known().get(&source).unwrap().contains("first"), "from the start");
    issuer.was_asked_again().await;
    assert!(keyring.known().get(&source).is_some(), "and while its issuer is away");
    drop(second);

    let (mut keyring, _, third) = fetching(terms(Duration::ZERO), std::slice::from_ref(&source));
    assert_eq!(keyring.known().get(&source), None, "but not past its time");
    drop(third);

    let (mut keyring, _, _fourth) = fetching(terms(long), &[]);
    eventually(&mut keyring, &source, None).await;
    let is_gone = async {
        while !kept.load(long).is_empty() {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(Duration::from_secs(20), is_gone).await.expect("what nobody wants is forgotten");
}

#[tokio::test]
async fn sets_that_come_later_take_nobodys_place() {
    let issuer = Issuer::start().await;
    issuer.says(&keys("first"));
    let source = |index: usize| KeySource::Set(format!("{}/{index:04}", issuer.url()));
    let metrics = Arc::new(Metrics::new());
    let (mut fetcher, _keyring) = Fetcher::new(terms(&["127.0.0.1/32"]), metrics);
    let mut running = HashMap::new();
    let wanted = |sources: std::ops::Range<usize>| -> Wanted {
        sources.map(|index| (source(index), Duration::from_secs(1))).collect()
    };
    fetcher.keep_wanted(&mut running, &wanted(500..500 + MAX_SOURCES));
    fetcher.keep_wanted(&mut running, &wanted(0..500 + MAX_SOURCES));
    assert_eq!(running.len(), MAX_SOURCES);
    assert!(running.contains_key(&source(500)) && !running.contains_key(&source(0)));
    fetcher.keep_wanted(&mut running, &wanted(0..1));
    assert_eq!(running.into_keys().collect::<Vec<_>>(), [source(0)]);
}

#[tokio::test]
async fn no_set_stands_in_for_another_and_one_that_nobody_wants_is_forgotten() {
    let (good, bad) = (Issuer::start().await, Issuer::start().await);
    good.says(&keys("good"));
    bad.says("nonsense");
    let sources = [KeySource::Set(good.url()), KeySource::Set(bad.url())];
    let (mut keyring, _, _stop) = fetching(terms(&["127.0.0.1/32"]), &sources);
    let mut bad = bad;
    eventually(&mut keyring, &sources[0], Some("good")).await;
    bad.was_asked_again().await;
    assert_eq!(keyring.known().get(&sources[1]), None);

    keyring.want(Wanted::new());
    eventually(&mut keyring, &sources[0], None).await;
}

#[tokio::test]
async fn an_issuer_that_only_we_can_reach_is_never_dialled() {
    let issuer = Issuer::start().await;
    issuer.says(&keys("secret"));
    let exempt = Issuer::start().await;
    exempt.says(&keys("exempt"));
    let port = issuer.address.port();
    let sources = [
        KeySource::Set(issuer.url()),
        KeySource::Set(format!("http://localhost:{port}/keys")),
        KeySource::Set(format!("http://[::ffff:127.0.0.1]:{port}/keys")),
    ];
    let (mut keyring, metrics, _stop) = fetching(terms(&[]), &sources);
    let failed = || metrics.text().contains("jwks_sets{state=\"missing\"} 3");
    time::timeout(Duration::from_secs(20), async {
        while !failed() {
            time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("all of them are missing");
    assert_eq!(*keyring.known(), KeySets::default());
    assert_eq!(*issuer.asked.borrow(), 0);
}

#[tokio::test]
async fn the_keys_of_an_issuer_are_found_by_its_openid_configuration() {
    let (issuer, holder) = (Issuer::start().await, Issuer::start().await);
    holder.says(&keys("by-discovery"));
    let name = format!("http://{}", issuer.address);
    issuer.says(&format!(r#"{{"issuer":"{name}","jwks_uri":"{}"}}"#, holder.url()));
    let source = KeySource::Configuration(format!("{name}/.well-known/openid-configuration"));
    let (mut keyring, _, _stop) = fetching(terms(&["127.0.0.1/32"]), std::slice::from_ref(&source));
    eventually(&mut keyring, &source, Some("by-discovery")).await;
}
